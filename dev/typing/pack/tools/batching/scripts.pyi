from ......tools.batching.scripts import *
