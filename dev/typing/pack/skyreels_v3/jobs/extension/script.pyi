from .......skyreels_v3.jobs.extension.script import *
