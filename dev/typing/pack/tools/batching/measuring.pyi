from ......tools.batching.measuring import *
