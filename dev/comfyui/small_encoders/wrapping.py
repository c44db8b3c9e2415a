"""Replacing a function of a module by one that calls it, once, however often the pack is imported."""

import functools
from collections.abc import Callable
from types import ModuleType

MARK = "small_encoders"


def wrap(module: ModuleType, name: str, wrapper: Callable) -> None:
    """`wrapper(original)` returns what takes the place of `module.name`. A second call does nothing."""
    original = getattr(module, name)
    if not hasattr(original, MARK):
        wrapped = functools.wraps(original)(wrapper(original))
        setattr(wrapped, MARK, True)
        setattr(module, name, wrapped)
