"""The operations a forward is made of: one function each, with an eager reference that runs everywhere.

Where a graphics card has a faster backend it is taken, see dispatch.py.
"""

from .attention import attention
from .fp8_linear import fp8_linear
from .gelu import gelu_
from .int8_linear import int8_linear
from .modulation import add_gated_, add_gated_norm_modulate_, norm_modulate
from .norm_rope import rms_norm_, rms_norm_rope_, rotate_
from .quantise import quantised
from .quantised_rows import Quantisation, QuantisedRows, rows_like

__all__ = [
    "Quantisation",
    "QuantisedRows",
    "add_gated_",
    "add_gated_norm_modulate_",
    "attention",
    "fp8_linear",
    "gelu_",
    "int8_linear",
    "norm_modulate",
    "quantised",
    "rms_norm_",
    "rms_norm_rope_",
    "rotate_",
    "rows_like",
]
