from .....model_loaders.inspection import *
