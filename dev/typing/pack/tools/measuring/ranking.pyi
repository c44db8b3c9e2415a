from ......tools.measuring.ranking import *
