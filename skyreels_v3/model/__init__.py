"""The transformer: one class for all four checkpoints, and what its forward needs of memory.

Nothing is imported here: `params` is read by tools that have no torch.
"""
