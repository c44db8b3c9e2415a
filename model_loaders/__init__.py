"""Files on disk to a ready transformer: header checks, key names, the job, the list of checkpoints.

Nothing here imports ComfyUI.
"""
