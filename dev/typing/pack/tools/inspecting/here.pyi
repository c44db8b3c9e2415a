from ......tools.inspecting.here import *
