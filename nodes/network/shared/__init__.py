"""A MODEL whose forwards are made by a group of processes, a card each: what of it is in ComfyUI's process."""
