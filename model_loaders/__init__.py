"""Files on disk to a ready transformer, and back to a file.

`files` reads headers and shards, `tensors` what makes up a weight; `architecture` tells which network it is, `loras`
and `checkpoints` whether all of it fits. Above them, `weights` loads, `placement` says where copies go, `save` writes.

Nothing here imports ComfyUI.
"""
