from ......tools.measuring.record import *
