from ......tools.batching.state import *
