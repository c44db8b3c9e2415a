"""A recording to a plan of windows, and its passes."""
