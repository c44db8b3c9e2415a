"""A script of who says what, to turns with times."""
