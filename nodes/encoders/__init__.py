"""ComfyUI's VAE, CLIP, CLIP vision and audio encoder as the jobs call them."""
