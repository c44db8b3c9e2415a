"""What is learnt from: clips drawn once, as latents, in batches of the four jobs."""
