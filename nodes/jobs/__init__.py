"""One file a node: what the artist connects and sets."""
