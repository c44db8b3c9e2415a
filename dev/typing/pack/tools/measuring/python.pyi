from ......tools.measuring.python import *
