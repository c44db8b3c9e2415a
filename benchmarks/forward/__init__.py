"""One forward and its parts."""
