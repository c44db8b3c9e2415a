from ......tools.batching.needs import *
