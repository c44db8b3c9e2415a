from ......tools.inspecting.addresses import *
