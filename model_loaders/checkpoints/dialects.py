"""How a model's files are written, in words for people and programs.

    NAMES[, PACKING][, prefix PREFIX][, COUNT shards]     as in "wan", "wan, gguf" and "diffusers, 3 shards"

NAMES is "wan" or "diffusers". PACKING is one of PACKINGS and left out for plain numbers. PREFIX stands before every
name in the files.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from ...formats.kinds import KINDS, Kind, Precision
from ..architecture.key_maps import DIFFUSERS, WAN, find_dialect, unwrapped
from ..files.header import Header, TensorInfo
from ..tensors.stored import BESIDE, MARKER
from .other_models import foreign_format

GGUF = "gguf"
FP8_OLD = "scaled fp8 (old)"  # `scale_weight` beside a weight, and the marker `scaled_fp8`
FP8_MIXED = "fp8 mixed (comfy_quant)"  # `weight_scale`, and the format in `comfy_quant` or in the header
FP8_PLAIN = "plain fp8"  # no scales
BLOCK = re.compile(r"^(?P<prefix>.*?)blocks\.\d+\.(?:(?P<wan>(?:self|cross)_attn)|attn[12])\.norm_q\.weight$")
OTHERS = tuple(
    kind.word
    for kind in KINDS.values()
    if (kind.comfy_name or kind.other_names) and kind.precision is not Precision.FP8
)
PACKINGS = (FP8_OLD, FP8_MIXED, FP8_PLAIN, *OTHERS, GGUF)


def merged(headers: Mapping[Path, Header]) -> dict[str, TensorInfo]:
    """The tensors of all files."""
    return {key: info for header in headers.values() for key, info in header.tensors.items()}


def dialect_of(headers: Mapping[Path, Header], word: str = "") -> str | None:
    """How a transformer with these files is written, None if it is no transformer of Wan's kind.

    word: its packing, where more is known than headers tell.
    """
    tensors = merged(headers)
    found = find_dialect(tensors)
    names, prefix = (found[0].name, found[1]) if found else _by_a_block(tensors)
    if not names:
        return None
    shards = f"{len(headers)} shards" if len(headers) > 1 else ""
    parts = (names, word or packing_of(headers), f"prefix {prefix}" if prefix else "", shards)
    return ", ".join(part for part in parts if part)


def _by_a_block(tensors: Mapping[str, TensorInfo]) -> tuple[str, str]:
    """(NAMES, PREFIX) of shards among which the first is missing; empty if they are of no such transformer."""
    for block in filter(None, map(BLOCK.match, map(unwrapped, tensors))):
        if not block["prefix"] or block["prefix"].endswith("."):
            return (WAN if block["wan"] else DIFFUSERS).name, block["prefix"]
    return "", ""


def packing_of(headers: Mapping[Path, Header]) -> str:
    """One of PACKINGS, the name of another program's format, or nothing for plain numbers."""
    tensors = merged(headers)
    if any(header.file_format == "gguf" for header in headers.values()):
        return GGUF
    if foreign := foreign_format(tensors):
        return foreign
    beside = {key.rpartition(".")[2]: info.dtype for key, info in tensors.items()}
    dtypes = {info.dtype for key, info in tensors.items() if key.rpartition(".")[2] not in BESIDE}
    kind = next((kind for kind in KINDS.values() if _is_in(kind, beside, dtypes)), None)
    if kind is None:
        return ""
    if kind.precision is not Precision.FP8:
        return kind.word
    if MARKER in beside or "scale_weight" in beside:
        return FP8_OLD
    return FP8_MIXED if any(BESIDE.get(name) == "weight_scale" for name in beside) else FP8_PLAIN


def _is_in(kind: Kind, beside: Mapping[str, str], dtypes: set[str]) -> bool:
    """Whether a file has weights of this kind. beside: last part of a key -> dtype.  dtypes: of the weights."""
    if kind.has_own_scales:  # the codes may be bytes
        return kind.has_parts(beside)
    found = dtypes.intersection(kind.dtypes)
    # Bytes may hold anything; other dtypes tell the kind even where its scales are missing.
    return bool(found) and (found != {"U8"} or kind.has_parts(beside))
