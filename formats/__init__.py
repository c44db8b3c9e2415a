"""How the weight of a linear layer may be stored: one file per format, with the way there, back and through it.

Nothing here imports ComfyUI. `base` says what a format is; `registry` finds one by its Encoding.
"""
