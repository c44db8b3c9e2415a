from ......tools.batching.server import *
