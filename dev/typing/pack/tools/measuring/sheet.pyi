from ......tools.measuring.sheet import *
