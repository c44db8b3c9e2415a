"""Clips as they are read: by time, in SDR, without combs, of any rate and size."""
