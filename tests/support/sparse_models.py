"""Checkpoints of any size that take no room on the disk: headers with real names and shapes, and holes after them.

All numbers are zeros but the first, because a file of nothing but zeros is refused.
"""

from math import prod
from pathlib import Path

from pack.model_loaders.architecture.params import expected_shapes
from pack.model_loaders.tensors.safetensors_writer import SafetensorsFile
from pack.skyreels_v3.model.params import AudioParams, TransformerParams
from pack.skyreels_v3.recipes import Job

LARGE = TransformerParams()  # 28.6 GB in bf16
LARGE_AVATAR = TransformerParams(in_dim=36, image_dim=1280, audio=AudioParams())  # 37.8 GB
SIZES = {job: LARGE_AVATAR if job is Job.AVATAR else LARGE for job in Job}  # as published
BF16_ONE = b"\x80\x3f"


def write_sparse(path: Path, params: TransformerParams) -> Path:
    """A safetensors file in BF16 and Wan names."""
    file = SafetensorsFile({name: ("BF16", shape) for name, shape in expected_shapes(params).items()}, {})
    with path.open("wb") as out:
        out.write(file.header + BF16_ONE)
        out.truncate(file.size)
    return path


def write_sparse_gguf(path: Path, params: TransformerParams) -> Path:
    """A GGUF file in BF16."""
    import gguf

    writer = gguf.GGUFWriter(path, "wan")
    shapes = expected_shapes(params)
    for name, shape in shapes.items():
        if len(shape) > 4:  # as converters do it, because GGUF has no more
            writer.add_array(f"comfy.gguf.orig_shape.{name}", shape)
            shape = (prod(shape[:-2]), *shape[-2:])
        writer.add_tensor_info(name, shape, None, 2 * prod(shape), gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    padded = sum(-(-2 * prod(shape) // writer.data_alignment) * writer.data_alignment for shape in shapes.values())
    start = -(-path.stat().st_size // writer.data_alignment) * writer.data_alignment
    with path.open("r+b") as file:
        file.seek(start)
        file.write(BF16_ONE)
        file.truncate(start + padded)
    return path
