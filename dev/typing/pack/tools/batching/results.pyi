from ......tools.batching.results import *
