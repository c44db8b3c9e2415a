"""The table of all formats of weights: one row each, with everything about a format but its arithmetic.

Needs no torch, because headers are also read where there is none. The arithmetic is the row's class, in a file of this
folder. Source of what files hold: ComfyUI's quantised checkpoints (comfy/quant_ops.py, 0.3.75 to 0.33).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
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


class Products(str, Enum):
    """How packed weights are multiplied. The value is the name artists choose in Load Model."""

    AUTO = "auto"
    EXACT = "exact"  # the weight's numbers by the input as it is
    EIGHT_BITS = "8 bits"  # the input is rounded too, where a device multiplies such weights as they are stored


# What a part beside a weight has one number for. Groups are blocks whose size is told by the part alone; for each code,
# it is a table that the codes point into.
Counted = Literal["row", "column", "block", "group", "rectangle", "code"]

# Numbers that are stored as they are, without a format: dtype in headers -> what artists call it.
PLAIN = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16"}


@dataclass(frozen=True)
class Kind:
    """A way to store a weight [rows, columns]."""

    name: str  # in an Encoding; torch's or ggml's name if there is one
    word: str  # for artists
    bytes_per_number: float  # scales included
    format: str = ""  # its class in this folder, "module:class", imported when first used; GGUF's is in registry.py

    # Layout.
    block: int = 1  # columns that share a scale; a weight's columns, padded or not, are a multiple of it
    tile: int = 1  # files pad rows and columns to a multiple of this
    bits_per_code: int = 8  # where the codes' dtype is U8 or I8
    rotation: int = 0  # widest group of columns mixed by a Hadamard matrix, and the group where a file names none
    is_rotated: bool = False  # whether all weights of this kind are mixed so, also where a file does not say it

    # Files.
    comfy_name: str = ""  # ComfyUI's name of the format, empty if it has none
    other_names: tuple[str, ...] = ()  # of the format, by other converters
    dtypes: tuple[str, ...] = ()  # of the codes in headers of files that do not name the format; we write the first
    needed: tuple[str, ...] = ()  # parts beside "weight"; the last one tells this kind from others with its dtypes
    optional: tuple[str, ...] = ()  # parts that may lie beside "weight"
    scale_dtypes: tuple[str, ...] = ()  # of the last needed part, 2-D, if its dtype tells this kind; else empty
    comfy_scale: Literal["tensor", "row"] | None = None  # what ComfyUI has one weight_scale for, where it has few
    counts: Mapping[str, Counted] = field(default_factory=dict, hash=False)  # other parts: one number in all, or by row
    by_rectangles: str = ""  # the kind with the same codes and a scale for each rectangle of the weight

    # Nodes.
    precision: Precision | None = None  # under this choice in Load Model, files of this kind stay as they are
    is_packed: bool = False  # Load Model packs weights into this kind for `precision`; one kind per precision
    is_saved: bool = False  # Save Model writes it: codes, and a float32 weight_scale
    rounds_inputs: bool = False  # by itself; others do it only where Load Model is told to
    is_advised: bool = False  # the most exact kind of its size, which Plan suggests where memory is short

    @property
    def has_own_scales(self) -> bool:
        """Whether its scales are like those of no other kind."""
        return not {"block", "group"}.isdisjoint(self.counts.values())

    @property
    def family(self) -> str:
        """The word for all kinds of one precision: "fp8" for both 8-bit floats."""
        return self.precision.value if self.precision else self.word

    def has_parts(self, beside: Mapping[str, str]) -> bool:
        """Whether the part that tells this kind is among those beside a weight, name -> dtype in the header."""
        if not self.needed:
            return True
        dtype = beside.get(self.needed[-1])
        return dtype in self.scale_dtypes if self.scale_dtypes else dtype is not None


# The first that fits a weight is taken, so kinds with rarer parts stand first.
_ROWS = (
    Kind(
        name="nvfp4",
        word="nvfp4",
        bytes_per_number=1 / 2 + 1 / 16,
        format="nvfp4:Nvfp4",
        block=16,
        tile=16,
        bits_per_code=4,
        comfy_name="nvfp4",
        dtypes=("U8", "F4"),
        needed=("weight_scale", "weight_scale_2"),
        optional=("pre_quant_scale",),
        counts={"weight_scale": "block", "pre_quant_scale": "column"},
    ),
    Kind(
        name="mxfp8",
        word="mxfp8",
        bytes_per_number=1 + 1 / 32,
        format="mxfp8:Mxfp8",
        block=32,
        tile=32,
        comfy_name="mxfp8",
        other_names=("hybrid_mxfp8",),  # with one more scale, for cards without MXFP8
        dtypes=("F8_E4M3", "F8_E5M2", "I8"),  # the codes are E4M3; such scales tell them under other dtypes too
        needed=("weight_scale",),
        scale_dtypes=("F8_E8M0", "U8"),
        counts={"weight_scale": "block"},
    ),
    Kind(
        name="int8",
        word="int8",
        bytes_per_number=1,
        format="int8:Int8",
        rotation=256,
        comfy_name="int8_tensorwise",
        dtypes=("I8",),
        needed=("weight_scale",),
        comfy_scale="row",
        precision=Precision.INT8,
        is_packed=True,
        is_saved=True,
        rounds_inputs=True,
        is_advised=True,
        by_rectangles="int8_blockwise",
    ),
    Kind(
        name="int8_blockwise",
        word="int8 blocks",
        bytes_per_number=1 + 4 / 128**2,
        format="rectangles:Rectangles",
        other_names=("int8_blockwise",),
        needed=("weight_scale",),
        counts={"weight_scale": "rectangle"},
    ),
    # The codes of both are called I8, as those of int8: only the file's own description tells them.
    Kind(
        name="convrot_w4a4",
        word="w4a4",
        bytes_per_number=1 / 2,
        format="int4:RowInt4",
        block=2,
        bits_per_code=4,
        rotation=256,
        is_rotated=True,
        comfy_name="convrot_w4a4",
        needed=("weight_scale",),
    ),
    Kind(
        name="asym_w4a8_int8",
        word="w4a8",
        bytes_per_number=1 / 2 + 1 / 16,
        format="int4:GroupInt4",
        block=16,
        bits_per_code=4,
        rotation=256,
        is_rotated=True,
        comfy_name="asym_w4a8_int8",
        needed=("weight_s_rel", "weight_s_channel"),
        optional=("weight_codebook",),
        counts={"weight_s_rel": "group", "weight_s_channel": "row", "weight_codebook": "code"},
    ),
    Kind(
        name="float8_e4m3fn",
        word="fp8",
        bytes_per_number=1,
        format="fp8:Float8",
        comfy_name="float8_e4m3fn",
        other_names=("float8_e4m3fn_rowwise",),
        dtypes=("F8_E4M3",),
        optional=("weight_scale",),
        comfy_scale="tensor",
        precision=Precision.FP8,
        is_packed=True,
        is_saved=True,
        by_rectangles="float8_e4m3fn_blockwise",
    ),
    Kind(
        name="float8_e4m3fn_blockwise",
        word="fp8 blocks",
        bytes_per_number=1 + 4 / 128**2,
        format="rectangles:Rectangles",
        other_names=("float8_e4m3fn_blockwise", "float8_e4m3fn_block3d"),
        needed=("weight_scale",),
        counts={"weight_scale": "rectangle"},
    ),
    Kind(
        name="float8_e5m2",
        word="fp8 e5m2",
        bytes_per_number=1,
        format="fp8:Float8",
        comfy_name="float8_e5m2",
        dtypes=("F8_E5M2",),
        optional=("weight_scale",),
        comfy_scale="tensor",
        precision=Precision.FP8,
    ),
    Kind(
        name="nf4",
        word="nf4",
        bytes_per_number=1 / 2 + 4 / 64,
        format="nf4:Nf4",
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
BY_NAME_IN_FILES = {name: kind for kind in _ROWS for name in (kind.comfy_name, *kind.other_names) if name}
# Precision of Load Model -> the kind that it packs weights into.
PACKED = {kind.precision: kind for kind in _ROWS if kind.precision and kind.is_packed}
# Precision that is advised where memory is short -> bytes of a number.
SMALLER = {precision.value: kind.bytes_per_number for precision, kind in PACKED.items() if kind.is_advised}
