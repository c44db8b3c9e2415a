"""Clips in and out: read any file, write and join ours, with their sound."""
