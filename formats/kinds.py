"""What each format of weights is: one row a kind, read by all who must know a format without its class.

Needs no torch: headers of models are read where there is none. A new format is a row here and its class in a file
beside this one. Sources: ComfyUI's quantised checkpoints (comfy/quant_ops.py, 0.3.75 to 0.33) for what stands in
files; the classes name those of the formats themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from .gguf_types import TYPES


class Precision(str, Enum):
    """How the weights are kept. The value is the name artists choose in Load Model."""

    AUTO = "auto"
    BF16 = "bf16"
    FP16 = "fp16"
    FP8 = "fp8"
    INT8 = "int8"
    NF4 = "nf4"


# Numbers that are stored as they are, without a format: dtype in headers -> what artists call it.
PLAIN = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}


@dataclass(frozen=True)
class Kind:
    """A format of weights [rows, columns]. Only what a format has stands in its row."""

    name: str  # what an Encoding calls it: torch's or ggml's name where they have one
    word: str  # what artists call it
    bytes_per_number: float  # with its scales
    made_by: str = ""  # "module:class" in this folder, imported when first needed; empty for GGUF, see registry.py

    # Shapes.
    block: int = 1  # columns that share a scale and are stored whole; 1: any number of columns
    tile: int = 1  # rows and columns in files are padded to a multiple of this
    codes_per_byte: int = 1  # in codes of dtype U8
    rotation: int = 0  # widest group of columns that a Hadamard matrix mixes; also where a file does not say it

    # In safetensors files.
    comfy_name: str = ""  # what ComfyUI calls it; empty if it has no such format
    dtypes: tuple[str, ...] = ()  # of the codes in headers, where no file says the format; the first is what we write
    needed: tuple[str, ...] = ()  # parts beside "weight"; the last one tells it from other kinds of the same dtypes
    optional: tuple[str, ...] = ()  # parts beside "weight" that may lie there
    told_by: tuple[str, ...] = ()  # dtypes of the last needed part, where only they tell it; it has two dimensions
    scales: Literal["tensor", "row", "block"] | None = None  # how many ComfyUI reads: one, up to one a row or a block

    # In the nodes.
    precision: Precision | None = None  # the one of Load Model under which files that are stored so stay as they are
    is_packed: bool = False  # Load Model packs into it under that precision; one kind of each
    is_saved: bool = False  # Save Model writes it, with scales for "tensor" or "row"
    is_advised: bool = False  # taken by auto and named by Plan where memory is short: the most exact of its size

    @property
    def family(self) -> str:
        """What artists call it and its kin alike: "fp8" for both 8-bit floats."""
        return self.precision.value if self.precision else self.word

    def lies_beside(self, beside: Mapping[str, str]) -> bool:
        """Whether parts that lie beside a weight, name -> dtype in the header, are those that tell this kind."""
        if not self.needed:
            return True
        dtype = beside.get(self.needed[-1])
        return dtype in self.told_by if self.told_by else dtype is not None


# The first that fits a file is taken: those with the rarest parts stand first.
_ROWS = (
    Kind(
        name="nvfp4",
        word="nvfp4",
        bytes_per_number=1 / 2 + 1 / 16,
        made_by="nvfp4:Nvfp4",
        block=16,
        tile=16,
        codes_per_byte=2,
        comfy_name="nvfp4",
        dtypes=("U8", "F4"),
        needed=("weight_scale", "weight_scale_2"),
        scales="block",
    ),
    Kind(
        name="mxfp8",
        word="mxfp8",
        bytes_per_number=1 + 1 / 32,
        made_by="mxfp8:Mxfp8",
        block=32,
        tile=32,
        comfy_name="mxfp8",
        dtypes=("F8_E4M3", "F8_E5M2", "I8"),
        needed=("weight_scale",),
        told_by=("F8_E8M0", "U8"),
        scales="block",
    ),
    Kind(
        name="int8",
        word="int8",
        bytes_per_number=1,
        made_by="int8:Int8",
        rotation=256,
        comfy_name="int8_tensorwise",
        dtypes=("I8",),
        needed=("weight_scale",),
        scales="row",
        precision=Precision.INT8,
        is_packed=True,
        is_saved=True,
        is_advised=True,
    ),
    Kind(
        name="float8_e4m3fn",
        word="fp8",
        bytes_per_number=1,
        made_by="fp8:Float8",
        comfy_name="float8_e4m3fn",
        dtypes=("F8_E4M3",),
        optional=("weight_scale",),
        scales="tensor",
        precision=Precision.FP8,
        is_packed=True,
        is_saved=True,
    ),
    Kind(
        name="float8_e5m2",
        word="fp8 e5m2",
        bytes_per_number=1,
        made_by="fp8:Float8",
        comfy_name="float8_e5m2",
        dtypes=("F8_E5M2",),
        optional=("weight_scale",),
        scales="tensor",
        precision=Precision.FP8,
    ),
    Kind(
        name="nf4",
        word="nf4",
        bytes_per_number=1 / 2 + 4 / 64,
        made_by="nf4:Nf4",
        block=64,
        precision=Precision.NF4,
        is_packed=True,
        is_advised=True,
    ),
    *(
        Kind(
            name=type.name,
            word=type.name,
            bytes_per_number=type.bytes / type.elements,
            block=type.elements,
            dtypes=(type.name,),
        )
        for type in TYPES.values()
        if type.elements > 1
    ),
)
KINDS = {kind.name: kind for kind in _ROWS}
BY_COMFY_NAME = {kind.comfy_name: kind for kind in _ROWS if kind.comfy_name}
# What Load Model packs weights into.
PACKED = {kind.precision: kind for kind in _ROWS if kind.precision and kind.is_packed}
