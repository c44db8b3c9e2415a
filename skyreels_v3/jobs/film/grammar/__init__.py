"""A film's script: how its lines are read, checked while they are written, and changed."""
