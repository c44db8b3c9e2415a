from ......tools.serving.worker import *
