from ......model_loaders.files.tensor_info import *
