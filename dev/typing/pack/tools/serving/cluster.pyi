from ......tools.serving.cluster import *
