"""The ComfyUI side: the only folder that imports ComfyUI.

`jobs`: the nodes that make videos and what goes into them, a file each; `models` and `sampling`: their nodes; `runs`:
what the long jobs run; `network`, `weights`, `encoders`: ComfyUI's MODEL, its layers, VAE and encoders; `inputs`: what
nodes share.
"""
