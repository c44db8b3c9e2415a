"""Recordings of one or two people, to the features that condition the avatar's transformer."""
