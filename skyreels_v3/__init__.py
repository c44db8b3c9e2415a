"""SkyReels-V3 in plain torch. Nothing here imports ComfyUI.

`images`, `speech` and `video` read what the artist gives, `jobs` plan it, `model`, `sampling` and `vae` make it,
`resume` keeps each finished window on disk. Nothing is imported here: parts are read where there is no torch.
"""
