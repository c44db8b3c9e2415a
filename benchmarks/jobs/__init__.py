"""Whole jobs: memory over hours, interrupts, drift, batches."""
