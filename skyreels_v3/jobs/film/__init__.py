"""A film: its script line by line, the shots as a graph, their takes, and the order in which they are made."""
