"""Load, Save and LoRA: a file on disk to a MODEL, and back."""
