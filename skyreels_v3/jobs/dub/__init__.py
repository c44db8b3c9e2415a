"""Footage that says something else: its windows, the crop that follows the head, and what is put back into it."""
