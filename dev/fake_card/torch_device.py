"""torch as it answers on a machine with the card, for the rest of the process: before ComfyUI is imported."""

import contextlib
import ctypes
import functools
import platform
import sys
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

from .attention import attention
from .meter import Meter
from .profiles import Card

# c10::DeviceType
GUARDS, META = {"cuda": 1, "mps": 13}, 14
# The newest of each, which hide no fault behind a way around an old one.
CUDA_VERSION, CUDNN_VERSION, HIP_VERSION, MACOS = "13.0", 91700, "6.4", "15.5"
BUS = 256  # bits
_meters: list[Meter] = []


class Event:
    """A mark that is always reached."""

    def __init__(self, *_: object, **__: object): ...

    def record(self, *_: object) -> None: ...

    def wait(self, *_: object) -> None: ...

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        _wait("event")

    def elapsed_time(self, _: object) -> float:
        return 1.0


class Stream:
    """A queue that is always empty."""

    cuda_stream = 0

    def __init__(self, *_: object, **__: object): ...

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None: ...

    def record_event(self, *_: object) -> Event:
        return Event()

    def wait_event(self, *_: object) -> None: ...

    def wait_stream(self, *_: object) -> None: ...

    def synchronize(self) -> None:
        _wait("stream")


class Indexed(TorchFunctionMode):
    """Gives a device its index before torch asks the borrowed guard for it, which would answer "meta"."""

    def __init__(self, meter: Meter):
        super().__init__()
        self.meter = meter

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None):
        if func is torch.Tensor.to:
            args, kwargs = tree_map(self.meter.indexed, (args, kwargs or {}))
        return func(*args, **(kwargs or {}))


def install(card: Card) -> None:
    """Lets this process take `card` for its own. Once: what asks torch at import has its answer then."""
    _borrow_guard(GUARDS[card.device])
    torch.nn.functional.scaled_dot_product_attention = functools.partial(attention, card, _meters)
    torch.nn.Module._apply = _apply
    if card.kind == "apple":
        torch.backends.mps.is_available = lambda: True
        platform.mac_ver = lambda *_, **__: (MACOS, ("", "", ""), "arm64")
        for name, value in _mps(card).items():
            setattr(torch.mps, name, value)
        return
    for name, value in _cuda(card).items():
        setattr(torch.cuda, name, value)
    if card.kind == "amd":
        torch.version.hip = HIP_VERSION
        torch.backends.cudnn.enabled = not card.unfolds
    else:
        torch.version.cuda = CUDA_VERSION
        torch.backends.cudnn.version = lambda: CUDNN_VERSION
        torch.backends.cudnn.is_available = lambda: True
        torch.backends.cuda.is_flash_attention_available = lambda: not card.windows


@contextlib.contextmanager
def measured(card: Card) -> Generator[Meter]:
    """Within it new tensors are fake, and counted. What was made outside, on the host, may come in."""
    meter = Meter(card)
    _meters.append(meter)
    try:
        with meter.mode, meter, Indexed(meter):
            yield meter
    finally:
        _meters.remove(meter)


def _wait(what: str) -> None:
    for meter in _meters:
        meter.wait(what)


def _used(card: Card) -> int:
    return sum(meter.live[card.device] for meter in _meters)


def _cuda(card: Card) -> dict[str, Any]:
    """Attribute of torch.cuda -> what stands there."""
    properties = SimpleNamespace(
        name=card.name,
        major=card.capability[0],
        minor=card.capability[1],
        total_memory=card.memory,
        multi_processor_count=card.processors,
        memory_bus_width=BUS,
        memory_clock_rate=round(card.rates.bandwidth * 8 / BUS / 2e3),
        warp_size=32,
        gcnArchName=card.arch,
    )
    stream = Stream()
    kinds = ("reserved_bytes", "active_bytes", "allocated_bytes")
    return {
        "is_available": lambda: True,
        "is_initialized": lambda: False,
        "_lazy_init": lambda: None,
        "device_count": lambda: 1,
        "current_device": lambda: f"{card.device}:0",  # torch.device(0) asks for an accelerator
        "set_device": lambda *_: None,
        "get_device_name": lambda *_: card.name,
        "get_device_capability": lambda *_: card.capability if card.kind == "nvidia" else (11, 0),
        "get_device_properties": lambda *_: properties,
        "mem_get_info": lambda *_: (card.memory - _used(card), card.memory),
        "memory_stats": lambda *_: {f"{kind}.all.current": _used(card) for kind in kinds},
        "memory_allocated": lambda *_: _used(card),
        "memory_reserved": lambda *_: _used(card),
        "max_memory_allocated": lambda *_: max((meter.peak[card.device] for meter in _meters), default=0),
        "reset_peak_memory_stats": lambda *_: [meter.forget_peak() for meter in _meters],
        "synchronize": lambda *_: _wait("device"),
        "empty_cache": lambda: None,
        "ipc_collect": lambda: None,
        "is_bf16_supported": lambda *_, **__: card.has_bfloat16,
        "get_allocator_backend": lambda: "native",
        "current_stream": lambda *_: stream,
        "default_stream": lambda *_: stream,
        "Stream": Stream,
        "Event": Event,
        "stream": lambda _: contextlib.nullcontext(),
        "device": lambda *_: contextlib.nullcontext(),
        "cudart": lambda: SimpleNamespace(cudaHostRegister=lambda *_: 0, cudaHostUnregister=lambda *_: 0),
    }


def _mps(card: Card) -> dict[str, Any]:
    """Attribute of torch.mps -> what stands there."""
    return {
        "synchronize": lambda: _wait("device"),
        "empty_cache": lambda: None,
        "current_allocated_memory": lambda: _used(card),
        "driver_allocated_memory": lambda: _used(card),
    }


def _borrow_guard(place: int) -> None:
    """Lets a torch that was built for processors switch to a card: by doing nothing, as it does for the meta device."""
    name = {"linux": "libc10.so", "darwin": "libc10.dylib", "win32": "c10.dll"}[sys.platform]
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / name))
    guards = (ctypes.c_void_p * 20).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    if not guards[place]:
        guards[place] = guards[META]


def _apply(self: torch.nn.Module, function: Any, recurse: bool = True) -> torch.nn.Module:
    """Module._apply without torch's swap of tensors, which fails for fake ones that anything refers to."""
    if recurse:
        for module in self.children():
            module._apply(function)
    for name, parameter in self._parameters.items():
        if parameter is not None:
            with torch.no_grad():
                moved = function(parameter)
            if moved is not parameter:
                self._parameters[name] = torch.nn.Parameter(moved, parameter.requires_grad)
    for name, buffer in self._buffers.items():
        if buffer is not None:
            self._buffers[name] = function(buffer)
    return self
