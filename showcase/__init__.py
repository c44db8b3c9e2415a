"""`make demo`: every job once with the nano models; and the pictures of README.md and of the template browser,
which are drawn from its runs.
"""
