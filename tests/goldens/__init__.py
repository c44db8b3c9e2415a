"""What the official code computed, and what compares with it."""
