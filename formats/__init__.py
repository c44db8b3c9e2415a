"""How the weight of a linear layer may be stored: one file per format, how to encode, decode and multiply it.

Nothing here imports ComfyUI. `kinds` is the table of all formats, which needs no torch; `base` is their class, and
`registry` finds one by its Encoding.
"""
