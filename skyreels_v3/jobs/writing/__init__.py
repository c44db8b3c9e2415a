"""What a language model is asked for prompts and scripts, and how its answer becomes one. Needs no torch."""
