from ......tools.measuring.page import *
