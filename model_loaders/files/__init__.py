"""Model files as they lie on disk: their headers, which belong together, whether they are still the same."""
