"""A checkpoint recognised and checked, and what any other file is."""
