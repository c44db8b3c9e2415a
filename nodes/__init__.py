"""The ComfyUI side: the only folder that imports ComfyUI. One file a node in `jobs`, `models` and `sampling`."""
