"""A small drawn world, and what nano models learn from it: a development tool, not part of what artists install.

Needs numpy; torch where samples are handed to a model. Imported as `pack.training` (tools/pack.py).
"""
