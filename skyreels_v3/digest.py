"""Keys of a run's parts: what they depend on, and nothing else, in 32 hex digits."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from enum import Enum
from fractions import Fraction
from typing import Any

import numpy as np
import torch


def chain_keys(base: Any, parts: Sequence[Any]) -> tuple[str, ...]:
    """The key of each of `parts`, 32 hex digits, which follows from `base` and all parts up to it.

    base: what every part depends on (source, models, seed, size).  parts: what each part adds (a line of the script).
    So a change of line 3 changes the keys of line 3 and of those behind it, and lines 1 and 2 stay done.
    See `digest` for what the values may be.
    """
    keys, key = [], digest("base", base)
    for part in parts:
        key = digest(key, part)
        keys.append(key)
    return tuple(keys)


def digest(*values: Any) -> str:
    """32 hex digits that follow from the values alone, on every machine and in every run.

    Values: None, booleans, numbers, fractions, text, bytes, enums, dataclasses, tensors and numpy arrays (dtype, shape
    and content), and lists, tuples and dicts (in any order) of those.  Raises TypeError for anything else.
    """
    state = hashlib.blake2b(digest_size=16)
    for value in values:
        _feed(state, value)
    return state.hexdigest()


def _feed(state, value: Any) -> None:
    """Every value with its type and length before it, so that no two values look alike."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(np.ascontiguousarray(value))
    if value is None or isinstance(value, bool | int | Fraction):
        content = str(value).encode()
    elif isinstance(value, float):
        content = value.hex().encode()
    elif isinstance(value, str):
        content = value.encode("utf-8", "surrogatepass")
    elif isinstance(value, bytes | bytearray):
        content = bytes(value)
    elif isinstance(value, torch.Tensor):
        _feed(state, [str(value.dtype), list(value.shape)])
        content = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _feed(state, [type(value).__name__, fields])
    elif isinstance(value, Mapping):
        items = sorted(((digest(key), key, item) for key, item in value.items()), key=lambda entry: entry[0])
        state.update(f"mapping {len(items)}:".encode())
        for _, key, item in items:
            _feed(state, key)
            _feed(state, item)
        return None
    elif isinstance(value, list | tuple):
        state.update(f"list {len(value)}:".encode())
        for item in value:
            _feed(state, item)
        return None
    else:
        raise TypeError(f"no stable key of a {type(value).__name__}")
    state.update(f"{type(value).__name__} {len(content)}:".encode())
    state.update(content)
    return None
