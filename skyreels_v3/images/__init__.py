"""Pictures and frames as tensors: their form, their size, their colours."""
