from ......tools.measuring.measured import *
