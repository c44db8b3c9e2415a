from ......tools.batching.workflow import *
