"""SkyReels-V3 in plain torch: the transformer, its solver and its four jobs. Nothing here imports ComfyUI."""
