"""The ComfyUI side: the only folder that imports ComfyUI. One file per job."""
