"""Recordings of one or two people, to the features that the avatar's transformer hears."""
