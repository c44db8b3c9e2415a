"""Loading, starting, the VAE, damaged files."""
