from ......tools.batching.farm import *
