"""Development pack for ComfyUI: lets the stock loaders open small encoders, such as those of `nano/` and of
`dev/samples/tiny_models.py`.

    CLIPLoader (type wan)    umt5 of any size
    CLIPVisionLoader         ViT of any size
    AudioEncoderLoader       wav2vec2 of any size, in the layouts of base and large

ComfyUI has classes for all three but builds each in one or two sizes only. Here the same classes are built in the
sizes that a file's tensors have. Of ComfyUI only the functions are wrapped that every way of loading goes through; a
file of a size that ComfyUI knows meets the same code as before.
"""

from . import image, speech, text

NODE_CLASS_MAPPINGS = {}

for part in (text, image, speech):
    part.install()
