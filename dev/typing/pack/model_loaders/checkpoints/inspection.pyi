from ......model_loaders.checkpoints.inspection import *
