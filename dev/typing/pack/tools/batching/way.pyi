from ......tools.batching.way import *
