"""What artists run: any Python from 3.10 on, without ComfyUI's."""
