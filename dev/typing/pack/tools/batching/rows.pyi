from ......tools.batching.rows import *
