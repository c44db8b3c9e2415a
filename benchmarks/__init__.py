"""Speed and memory beside the plain way: see README.md."""
