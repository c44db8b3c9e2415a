"""How exactly the VAE is computed."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_float32() -> Generator[None]:
    """All digits of float32 in convolutions: cuDNN takes the ten bits of TF32, and counts wrongly with them in some
    versions.
    """
    cudnn: Any = torch.backends.cudnn
    try:
        before = cudnn.allow_tf32
    except RuntimeError:  # somebody has set torch's newer switches instead: as they wish
        yield
        return
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before
