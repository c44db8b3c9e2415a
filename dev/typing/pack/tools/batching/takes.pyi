from ......tools.batching.takes import *
