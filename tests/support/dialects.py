"""A transformer's weights written in every dialect that artists hold, and what a loader must read out of them.

    weights = write("fp8 mixed", path, job)    Wan name -> the float32 weights that the file stands for

The files are made by the references where there are some (comfy-kitchen, gguf), else by hand from the layouts that
ComfyUI's own loader reads.
"""

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

from pack.dev.samples.tiny_models import TINY, TINY_AVATAR, transformer_weights
from pack.model_loaders.architecture.key_maps import DIFFUSERS
from pack.model_loaders.tensors.precision import MATRICES
from pack.skyreels_v3.model.params import TransformerParams
from pack.skyreels_v3.recipes import Job

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
Weights = dict[str, torch.Tensor]


def is_matrix(name: str) -> bool:
    return bool(MATRICES.match(name))


def plain(weights: Weights, dtype: torch.dtype) -> tuple[Weights, Weights, dict]:
    """(tensors of the file, what they stand for, metadata)"""
    tensors = {name: weight.to(dtype) for name, weight in weights.items()}
    return tensors, {name: tensor.float() for name, tensor in tensors.items()}, {}


def fp8_plain(weights: Weights, dtype: torch.dtype) -> tuple[Weights, Weights, dict]:
    """Everything cast, as "fp8_e4m3fn" files are."""
    return plain(weights, dtype)


def fp8_old(weights: Weights) -> tuple[Weights, Weights, dict]:
    """Scaled fp8 of 2024: a marker, scale_weight and scale_input."""
    tensors, means, _ = plain(weights, torch.float16)
    tensors["scaled_fp8"] = torch.zeros(2).to(E4M3)
    for name in filter(is_matrix, weights):
        codes, scale = to_fp8(weights[name])
        layer = name.removesuffix(".weight")
        tensors |= {name: codes, f"{layer}.scale_weight": scale, f"{layer}.scale_input": torch.ones(())}
        means[name] = codes.float() * scale
    return tensors, means, {}


def fp8_mixed(weights: Weights, where: str) -> tuple[Weights, Weights, dict]:
    """ComfyUI's and Kijai's: weight_scale, and the format in a tensor of each layer or in the header; the last is bf16.

    where: "tensors", "header" or "prefixed header", which names the layers with ComfyUI's prefix.
    """
    tensors, means, _ = plain(weights, torch.bfloat16)
    layers = {}
    for name in filter(is_matrix, weights):
        if name.startswith("blocks.1."):
            continue
        codes, scale = to_fp8(weights[name])
        layer = name.removesuffix(".weight")
        tensors |= {name: codes, f"{layer}.weight_scale": scale}
        layers[layer] = {"format": "float8_e4m3fn"}
        means[name] = codes.float() * scale
    tensors, metadata = with_formats(tensors, layers, where)
    return tensors, means, metadata


def int8(weights: Weights, rotated: bool, per_row: bool = True) -> tuple[Weights, Weights, dict]:
    """ComfyUI's int8_tensorwise, as comfy-kitchen makes it."""
    from comfy_kitchen.tensor import TensorWiseINT8Layout

    tensors, means, _ = plain(weights, torch.bfloat16)
    layers = {}
    for name in filter(is_matrix, weights):
        group = next(size for size in (256, 64, 16, 4) if weights[name].shape[1] % size == 0)
        options = {"convrot": True, "convrot_groupsize": group} if rotated else {}
        codes, params = TensorWiseINT8Layout.quantize(weights[name], per_channel=per_row, **options)
        layer = name.removesuffix(".weight")
        tensors |= {name: codes, f"{layer}.weight_scale": params.scale}
        layers[layer] = {"format": "int8_tensorwise", **options}
        means[name] = TensorWiseINT8Layout.dequantize(codes, params).float()
    tensors, metadata = with_formats(tensors, layers, "tensors")
    return tensors, means, metadata


def blocks_of(kind: str, weights: Weights) -> tuple[Weights, Weights, dict]:
    """NVFP4 or MXFP8, as comfy-kitchen makes them."""
    from comfy_kitchen.tensor import TensorCoreMXFP8Layout, TensorCoreNVFP4Layout

    layout = {"nvfp4": TensorCoreNVFP4Layout, "mxfp8": TensorCoreMXFP8Layout}[kind]
    tensors, means, _ = plain(weights, torch.bfloat16)
    layers = {}
    for name in filter(is_matrix, weights):
        weight = weights[name]
        codes, params = layout.quantize(weight)
        layer = name.removesuffix(".weight")
        parts = layout.state_dict_tensors(codes, params)
        tensors |= {f"{layer}.weight{end}": part.reshape(()) if part.ndim == 0 else part for end, part in parts.items()}
        layers[layer] = {"format": kind}
        rows, columns = weight.shape
        means[name] = layout.dequantize(codes, params).float()[:rows, :columns]
    tensors, metadata = with_formats(tensors, layers, "header")
    return tensors, means, metadata


def int4(kind: str, weights: Weights) -> tuple[Weights, Weights, dict]:
    """ComfyUI's convrot_w4a4 or asym_w4a8_int8, as comfy-kitchen makes them; the header names layers by a prefix."""
    from comfy_kitchen.tensor import AsymW4A8Int8Layout, TensorCoreConvRotW4A4Layout

    layout = {"convrot_w4a4": TensorCoreConvRotW4A4Layout, "asym_w4a8_int8": AsymW4A8Int8Layout}[kind]
    tensors, means, _ = plain(weights, torch.bfloat16)
    layers = {}
    for name in filter(is_matrix, weights):
        options = {"convrot_groupsize": 16 if kind == "convrot_w4a4" else 64}
        codes, params = layout.quantize(weights[name], **options)
        layer = name.removesuffix(".weight")
        parts = layout.state_dict_tensors(codes, params)
        tensors |= {f"{layer}.weight{end}": part for end, part in parts.items()}
        layers[layer] = {"format": kind, **options}
        means[name] = layout.dequantize(codes, params).float()
    tensors, metadata = with_formats(tensors, layers, "prefixed header")
    return tensors, means, metadata


def rectangles(weights: Weights, dtype: torch.dtype, size: int, said: str) -> tuple[Weights, Weights, dict]:
    """A scale for each rectangle of `size` x `size`, as DeepSeek's files and convert_to_quant's have them.

    said: the format's name in each layer, empty for files that name none and call the scale weight_scale_inv.
    """
    tensors, means, _ = plain(weights, torch.bfloat16)
    largest = 127 if dtype == torch.int8 else torch.finfo(dtype).max
    layers = {}
    for name in filter(is_matrix, weights):
        weight = weights[name]
        down, across = (-(-side // size) for side in weight.shape)
        scale = torch.empty(down, across)
        codes, mean = torch.empty_like(weight, dtype=dtype), torch.empty_like(weight)
        for i in range(down):
            for j in range(across):
                there = slice(size * i, size * (i + 1)), slice(size * j, size * (j + 1))
                scale[i, j] = weight[there].abs().max() / largest
                numbers = weight[there] / scale[i, j]
                codes[there] = (numbers.round() if dtype == torch.int8 else numbers).to(dtype)
                mean[there] = codes[there].float() * scale[i, j]
        layer = name.removesuffix(".weight")
        tensors |= {name: codes, f"{layer}.{'weight_scale' if said else 'weight_scale_inv'}": scale}
        layers[layer] = {"format": said, "group_size": size}
        means[name] = mean
    tensors, metadata = with_formats(tensors, layers, "tensors") if said else (tensors, {})
    return tensors, means, metadata


def fp8_rows(weights: Weights) -> tuple[Weights, Weights, dict]:
    """convert_to_quant's float8_e4m3fn_rowwise: a scale [rows]."""
    tensors, means, _ = plain(weights, torch.bfloat16)
    layers = {}
    for name in filter(is_matrix, weights):
        scale = weights[name].abs().amax(dim=1) / torch.finfo(E4M3).max
        codes = (weights[name] / scale[:, None]).to(E4M3)
        layer = name.removesuffix(".weight")
        tensors |= {name: codes, f"{layer}.weight_scale": scale}
        layers[layer] = {"format": "float8_e4m3fn_rowwise"}
        means[name] = codes.float() * scale[:, None]
    tensors, metadata = with_formats(tensors, layers, "tensors")
    return tensors, means, metadata


def nvfp4_awq(weights: Weights) -> tuple[Weights, Weights, dict]:
    """NVFP4 with a scale for each column, as ModelOpt's AWQ makes it."""
    columns = {name: torch.linspace(0.5, 2, weights[name].shape[1]) for name in filter(is_matrix, weights)}
    smoothed = {name: weight / columns[name] if name in columns else weight for name, weight in weights.items()}
    tensors, means, metadata = blocks_of("nvfp4", smoothed)
    for name, scale in columns.items():
        tensors[f"{name.removesuffix('.weight')}.pre_quant_scale"] = scale
        means[name] = means[name] * scale
    return tensors, means, metadata


def with_formats(tensors: Weights, layers: dict, where: str) -> tuple[Weights, dict]:
    if where == "tensors":
        configs = {f"{layer}.comfy_quant": json.dumps(config).encode() for layer, config in layers.items()}
        return tensors | {key: torch.tensor(list(text), dtype=torch.uint8) for key, text in configs.items()}, {}
    prefix = "diffusion_model." if where == "prefixed header" else ""
    table = {"format_version": "1.0", "layers": {prefix + layer: config for layer, config in layers.items()}}
    return tensors, {"_quantization_metadata": json.dumps(table)}


def to_fp8(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = weight.abs().max() / torch.finfo(E4M3).max
    return (weight / scale).to(E4M3), scale


SAFETENSORS = {
    "bf16": lambda weights: plain(weights, torch.bfloat16),
    "fp16": lambda weights: plain(weights, torch.float16),
    "fp8 plain": lambda weights: fp8_plain(weights, E4M3),
    "fp8 plain e5m2": lambda weights: fp8_plain(weights, E5M2),
    "fp8 old": fp8_old,
    "fp8 mixed": lambda weights: fp8_mixed(weights, "tensors"),
    "fp8 mixed, header": lambda weights: fp8_mixed(weights, "header"),
    "fp8 mixed, prefixed header": lambda weights: fp8_mixed(weights, "prefixed header"),
    "int8": lambda weights: int8(weights, rotated=False),
    "int8 tensorwise": lambda weights: int8(weights, rotated=False, per_row=False),
    "int8 rotated": lambda weights: int8(weights, rotated=True),
    "mxfp8": lambda weights: blocks_of("mxfp8", weights),
    "nvfp4": lambda weights: blocks_of("nvfp4", weights),
    "nvfp4 awq": nvfp4_awq,
    "fp8 rows": fp8_rows,
    "fp8 blocks": lambda weights: rectangles(weights, E4M3, 64, "float8_e4m3fn_blockwise"),
    "fp8 blocks, inverse": lambda weights: rectangles(weights, E4M3, 32, ""),
    "int8 blocks": lambda weights: rectangles(weights, torch.int8, 128, "int8_blockwise"),
    "w4a4": lambda weights: int4("convrot_w4a4", weights),
    "w4a8": lambda weights: int4("asym_w4a8_int8", weights),
    "fp64": lambda weights: plain(weights, torch.float64),
}
# What ComfyUI has no format for.
NOT_IN_COMFYUI = ("fp8 rows", "fp8 blocks", "fp8 blocks, inverse", "int8 blocks", "fp64")
GGUFS = {"Q8_0": "Q8_0", "Q5_1": "Q5_1", "Q4_0": "Q4_0", "BF16": "BF16", "F16": "F16"}
DIALECTS = (*SAFETENSORS, *GGUFS)


def write(
    dialect: str, path: Path, job: Job, names: str = "wan", prefix: str = "", params: TransformerParams | None = None
) -> Weights:
    """Write the tiny transformer of a job and return what the file stands for: Wan name -> float32.

    path: without its ending.  names: "wan" or "diffusers".  prefix: before every name.
    """
    params = params or (TINY_AVATAR if job is Job.AVATAR else TINY)
    weights = transformer_weights(params)
    if dialect in GGUFS:
        return write_gguf(path.with_suffix(".gguf"), weights, GGUFS[dialect], prefix)
    tensors, means, metadata = SAFETENSORS[dialect](weights)
    if names == DIFFUSERS.name:
        tensors = {new: tensors[old] for old, new in DIFFUSERS.inverted().rename(tensors).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {prefix + key: tensor.contiguous() for key, tensor in tensors.items()}
    save_file(tensors, path.with_suffix(".safetensors"), metadata or None)
    return means


def write_gguf(path: Path, weights: Weights, kind: str, prefix: str = "", architecture: str = "wan") -> Weights:
    """As the converters do: matrices in `kind`, vectors and modulation in F32, modulation in two dimensions, the patch
    embedding flattened."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture)
    means = {}
    for name, weight in weights.items():
        type = gguf.GGMLQuantizationType[kind if is_matrix(name) else "F32"]
        array = weight.numpy()
        if name.endswith("modulation"):
            array = array[0]
        if name == "patch_embedding.weight":
            array = array.reshape(-1, array.shape[1] * 4)
        data = gguf.quants.quantize(np.ascontiguousarray(array), type)
        means[name] = torch.from_numpy(gguf.quants.dequantize(data, type)).reshape(weight.shape)
        writer.add_tensor(prefix + name, data, raw_dtype=type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return means
