"""Checkpoints of any size that take no room on the disk: headers with real names and shapes, and holes after them.

All numbers are zeros but the first, because a file of nothing but zeros is refused.
"""

from collections.abc import Mapping
from math import prod
from pathlib import Path

import torch

from pack.formats.kinds import Precision
from pack.model_loaders.architecture.params import expected_shapes
from pack.model_loaders.checkpoints.checkpoint import open_checkpoint
from pack.model_loaders.save import SavePlan, marker_of
from pack.model_loaders.tensors.precision import MATRICES
from pack.model_loaders.tensors.safetensors_writer import SafetensorsFile
from pack.skyreels_v3.model.params import AudioParams, TransformerParams
from pack.skyreels_v3.recipes import Job

LARGE = TransformerParams()  # 28.6 GB in bf16
LARGE_AVATAR = TransformerParams(in_dim=36, image_dim=1280, audio=AudioParams())  # 37.8 GB
SIZES = {job: LARGE_AVATAR if job is Job.AVATAR else LARGE for job in Job}  # as published
ONE = b"\x80\x3f\x80\x3f"  # two numbers in BF16, about 1 in F32


def write_sparse(path: Path, params: TransformerParams) -> Path:
    """A safetensors file in BF16 and Wan names."""
    file = SafetensorsFile({name: ("BF16", shape) for name, shape in expected_shapes(params).items()}, {})
    return _write(path, file, {})


def write_sparse_packed(path: Path, params: TransformerParams, precision: Precision) -> Path:
    """A safetensors file in ComfyUI's format, such as Save Model writes and the scaled fp8 ones are that Kijai has:
    beside each matrix its scale, and its format in words."""
    plan = SavePlan(open_checkpoint(write_sparse(path, params)), precision, torch.bfloat16)
    texts = {f"{one.layer}.comfy_quant": marker_of(one.config) for one in plan.weights if one.config is not None}
    return _write(path, plan.file, {key: bytes(text.tolist()) for key, text in texts.items()})


def _write(path: Path, file: SafetensorsFile, texts: Mapping[str, bytes]) -> Path:
    """texts: key -> bytes of a tensor that is no hole."""
    with path.open("wb") as out:
        out.write(file.header + ONE)
        for key, text in texts.items():
            out.seek(len(file.header) + file.places[key][0])
            out.write(text)
        out.truncate(file.size)
    return path


def write_sparse_gguf(path: Path, params: TransformerParams, kind: str = "BF16") -> Path:
    """A GGUF file. kind: of the matrices; what is around them is BF16."""
    import gguf

    plain, packed = gguf.GGMLQuantizationType.BF16, gguf.GGMLQuantizationType[kind]
    writer, sizes = gguf.GGUFWriter(path, "wan"), []
    for name, shape in expected_shapes(params).items():
        if len(shape) > 4:  # as converters do it, because GGUF has no more
            writer.add_array(f"comfy.gguf.orig_shape.{name}", shape)
            shape = (prod(shape[:-2]), *shape[-2:])
        type = packed if MATRICES.match(name) else plain
        numbers, size = gguf.GGML_QUANT_SIZES[type]
        sizes.append(prod(shape) // numbers * size)
        writer.add_tensor_info(name, shape, None, sizes[-1], type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    padded = sum(-(-size // writer.data_alignment) * writer.data_alignment for size in sizes)
    start = -(-path.stat().st_size // writer.data_alignment) * writer.data_alignment
    with path.open("r+b") as file:
        file.seek(start)
        file.write(ONE)
        file.truncate(start + padded)
    return path
