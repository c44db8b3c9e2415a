"""A real ComfyUI: in this process, as a server, and its page in a browser."""
