from ......tools.serving.here import *
