from ......tools.inspecting.far import *
