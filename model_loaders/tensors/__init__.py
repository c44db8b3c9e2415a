"""Tensors in model files: which make up one weight and in which format, read, mapped and written."""
