"""Long videos window by window: each is on disk before the next one starts."""
