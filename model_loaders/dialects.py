"""How a model's files are written, in words for people and programs.

    NAMES[, PACKING][, prefix PREFIX][, COUNT shards]     as in "wan", "wan, gguf" and "diffusers, 3 shards"

NAMES is "wan" or "diffusers". PACKING is one of PACKINGS and left out for plain numbers. PREFIX stands before every
name in the files.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from .header import Header, TensorInfo
from .key_maps import DIFFUSERS, PREFIXES, WAN, find_dialect
from .other_models import foreign_format
from .stored import FLOAT8, MARKER

GGUF, NVFP4, MXFP8, INT8 = "gguf", "nvfp4", "mxfp8", "int8"
FP8_OLD = "scaled fp8 (old)"  # `scale_weight` beside a weight, and the marker `scaled_fp8`
FP8_MIXED = "fp8 mixed (comfy_quant)"  # `weight_scale`, and the format in `comfy_quant` or in the header
FP8_PLAIN = "plain fp8"  # no scales
BLOCK = re.compile(r"^(?P<prefix>.*?)blocks\.\d+\.(?:(?P<wan>(?:self|cross)_attn)|attn[12])\.norm_q\.weight$")
PACKINGS = (FP8_OLD, FP8_MIXED, FP8_PLAIN, INT8, MXFP8, NVFP4, GGUF)


def merged(headers: Mapping[Path, Header]) -> dict[str, TensorInfo]:
    """The tensors of all files."""
    return {key: info for header in headers.values() for key, info in header.tensors.items()}


def dialect_of(headers: Mapping[Path, Header]) -> str | None:
    """How a transformer with these files is written, None if it is no transformer of Wan's kind."""
    tensors = merged(headers)
    found = find_dialect(tensors)
    names, prefix = (found[0].name, found[1]) if found else _by_a_block(tensors)
    if not names:
        return None
    shards = f"{len(headers)} shards" if len(headers) > 1 else ""
    parts = (names, packing_of(headers), f"prefix {prefix}" if prefix else "", shards)
    return ", ".join(part for part in parts if part)


def _by_a_block(tensors: Mapping[str, TensorInfo]) -> tuple[str, str]:
    """(NAMES, PREFIX) of shards among which the first is missing; empty if they are of no such transformer."""
    for block in filter(None, map(BLOCK.match, tensors)):
        if block["prefix"] in PREFIXES:
            return (WAN if block["wan"] else DIFFUSERS).name, block["prefix"]
    return "", ""


def packing_of(headers: Mapping[Path, Header]) -> str:
    """One of PACKINGS, the name of another program's format, or nothing for plain numbers."""
    tensors = merged(headers)
    if any(header.file_format == "gguf" for header in headers.values()):
        return GGUF
    if foreign := foreign_format(tensors):
        return foreign
    scales = {key.rpartition(".")[2]: info.dtype for key, info in tensors.items() if "scale" in key}
    dtypes = {info.dtype for info in tensors.values()}
    if "weight_scale_2" in scales:
        return NVFP4
    if scales.get("weight_scale") in ("F8_E8M0", "U8"):
        return MXFP8
    if "I8" in dtypes:
        return INT8
    if not dtypes & set(FLOAT8):
        return ""
    if MARKER in scales or "scale_weight" in scales:
        return FP8_OLD
    return FP8_MIXED if "weight_scale" in scales else FP8_PLAIN
