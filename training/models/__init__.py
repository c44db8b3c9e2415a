"""The networks in a form that can be trained, their sizes, and how they are written."""
