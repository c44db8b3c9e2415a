"""Writes what was trained to nano/: transformers in 8 bits, as ComfyUI stores them, the autoencoder in 16.

Every matrix is int8 with a scale per row, those around the blocks too, which Save Model leaves in 16 bits: of a model
this small they are a sixth.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from ..formats.encoding import Encoding, rotation_for
from ..formats.registry import format_of
from ..model_loaders.jobs import METADATA_JOB
from ..model_loaders.stored import METADATA
from ..skyreels_v3.recipes import Job
from ..skyreels_v3.transformer import SkyReelsTransformer
from .autoencoder import Autoencoder

NANO = Path(__file__).resolve().parents[1] / "nano"
PLAIN = ("head.head",)  # what the picture comes out of: small, and its error is seen as it is


def write_transformer(model: SkyReelsTransformer, job: Job, file: Path, packed: bool = True) -> Path:
    """packed: int8; else bfloat16."""
    tensors, layers = {}, {}
    for name, weight in model.state_dict().items():
        layer = name.removesuffix(".weight")
        if not packed or not name.endswith(".weight") or weight.ndim != 2 or layer in PLAIN:
            tensors[name] = weight.bfloat16().contiguous()
            continue
        encoding = Encoding("int8", rotation_for(weight.shape[1]))
        for part, tensor in format_of(encoding).pack(weight.float()).items():
            tensors[f"{layer}.{part}"] = tensor.contiguous()
        layers[layer] = {"format": "int8_tensorwise"}
        if encoding.rotation:
            layers[layer] |= {"convrot": True, "convrot_groupsize": encoding.rotation}
        tensors[f"{layer}.comfy_quant"] = torch.tensor(list(json.dumps(layers[layer]).encode()), dtype=torch.uint8)
    metadata = {"format": "pt", METADATA_JOB: job.value, "num_heads": str(model.params.num_heads)}
    if layers:
        metadata[METADATA] = json.dumps({"format_version": "1.0", "layers": layers})
    save_file(tensors, file, metadata)
    return file


def write_autoencoder(model: Autoencoder, file: Path) -> Path:
    save_file({name: weight.half().contiguous() for name, weight in model.state_dict().items()}, file)
    return file
