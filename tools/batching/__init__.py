"""The parts of batch.py. Standard library only."""
