"""What a device or processor can do, found out by trying."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

Probe = TypeVar("Probe", bound=Callable[..., bool])


def probe(function: Probe) -> Probe:
    """Decorates a question that is answered once, and is a constant to torch.compile."""
    marked: Any = function
    # All that torch.compiler.assume_constant_result does but for an import of seconds.
    marked._dynamo_marked_constant = True
    return functools.cache(function)  # pyright: ignore[reportReturnType]: called in the same way
