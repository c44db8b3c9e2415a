from ......tools.measuring.likeness import *
