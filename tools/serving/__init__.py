"""What workers.py is made of: ComfyUIs that are kept alive, on this machine or on a Ray cluster."""
