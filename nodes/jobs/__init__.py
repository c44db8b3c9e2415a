"""One file a node, of the jobs and of what stands before and after them: what the artist connects and sets."""
