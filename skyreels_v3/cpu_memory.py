"""Memory that was freed, given back to the system."""

import ctypes
import functools
import sys
from collections.abc import Callable


@functools.cache
def _trim() -> Callable[[int], int] | None:
    """glibc's malloc_trim; other systems' allocators give large blocks back by themselves."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


def give_back() -> None:
    """Return freed memory: glibc keeps what lies between aligned blocks, which while a model is packed grows to the
    model's size, and in a long job with the number of windows."""
    trim = _trim()
    if trim is not None:
        trim(0)
