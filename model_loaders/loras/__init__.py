"""LoRA files: names, kinds, products and strength, and what fits the network."""
