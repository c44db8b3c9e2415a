"""The operations a forward is made of: one function each, with an eager reference that runs everywhere."""

from .attention import attention
from .int8_linear import int8_linear
from .modulation import add_gated_, norm_modulate
from .norm_rope import rms_norm_, rms_norm_rope_, rotate_

__all__ = ["add_gated_", "attention", "int8_linear", "norm_modulate", "rms_norm_", "rms_norm_rope_", "rotate_"]
