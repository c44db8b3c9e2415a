"""Wan's VAE in little memory, frame by frame or in tiles."""
