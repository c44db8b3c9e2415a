"""What torch computes in 16 bits on the processor, as it runs: `with HalfComputations() as half: ...; half.found`."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pack.kernels.half_precision import HALF

# Storage: numbers are moved, made, compared or converted, but nothing is computed from them. Fast on any processor.
STORAGE = set(
    """
    abs alias all amax amin aminmax any as_strided cat clone constant_pad_nd contiguous copy_ detach embedding
    empty_like eq equal expand fill_ flip gather _has_compatible_shallow_copy_type index index_put_ index_select
    is_pinned isfinite isnan lift_fresh _local_scalar_dense masked_fill_ max min ne new_empty new_empty_strided
    new_zeros normal_ permute repeat reshape _reshape_alias resize_ roll select set_ slice split split_with_sizes
    squeeze stack t to _to_copy transpose unbind unfold _unsafe_view unsqueeze view zero_ zeros_like
    """.split()
)


class HalfComputations(TorchDispatchMode):
    """found: (operation, dtype) of every one in this thread that is more than STORAGE."""

    def __init__(self):
        super().__init__()
        self.found: set[tuple[str, torch.dtype]] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """torch would import its compiler to keep it out: a second and a hundred megabytes."""
        return False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name not in STORAGE:
            for one in _tensors([*args, *(kwargs or {}).values()]):
                # A single number may be anything's scale.
                if one.dtype in HALF and one.device.type == "cpu" and one.numel() > 1:
                    self.found.add((name, one.dtype))
        return func(*args, **(kwargs or {}))


def _tensors(values):
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)
