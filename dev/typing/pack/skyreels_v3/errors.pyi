from .....skyreels_v3.errors import *
