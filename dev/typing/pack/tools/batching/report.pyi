from ......tools.batching.report import *
