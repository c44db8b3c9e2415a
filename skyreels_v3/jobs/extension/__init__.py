"""A script of shots to a plan of rolls, and one roll."""
