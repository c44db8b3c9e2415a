"""Writes what was trained to nano/: transformers in 8 bits, as ComfyUI stores them, the autoencoder in 16.

Every matrix is int8 with a scale per row, those around the blocks too, which Save Model leaves in 16 bits: of a model
this small they are a sixth.
"""

from pathlib import Path

from safetensors.torch import save_file

from ...formats.encoding import Encoding, rotation_for
from ...formats.registry import format_of
from ...model_loaders.save import comfy_config, marker_of, metadata_of
from ...skyreels_v3.model.transformer import SkyReelsTransformer
from ...skyreels_v3.recipes import Job
from .autoencoder import Autoencoder

PLAIN = ("head.head",)  # what the picture comes out of: small, and its error is seen as it is


def write_transformer(model: SkyReelsTransformer, job: Job, file: Path, packed: bool = True) -> Path:
    """packed: int8; else everything bfloat16."""
    tensors, layers = {}, {}
    for name, weight in model.state_dict().items():
        layer = name.removesuffix(".weight")
        if not packed or layer == name or weight.ndim != 2 or layer in PLAIN:
            tensors[name] = weight.bfloat16().contiguous()
            continue
        encoding = Encoding("int8", rotation_for(weight.shape[1]))
        for part, tensor in format_of(encoding).pack(weight.float()).items():
            tensors[f"{layer}.{part}"] = tensor.contiguous()
        layers[layer] = comfy_config(encoding)
        tensors[f"{layer}.comfy_quant"] = marker_of(layers[layer])
    save_file(tensors, file, metadata_of(model.params, job, layers))
    return file


def write_autoencoder(model: Autoencoder, file: Path) -> Path:
    save_file({name: weight.half().contiguous() for name, weight in model.state_dict().items()}, file)
    return file
