"""Files to work on: tiny checkpoints, what the workflows ask for, damaged models."""
