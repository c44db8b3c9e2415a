"""Which code runs an operation: its eager reference or a faster backend that was verified on the device.

A backend is imported and compared with the reference at the first call of a kind (device, dtype, width, options).
If it is missing, raises or computes something else, the reference runs from then on. Nothing is imported before a
tensor lies on a graphics card.

SKYREELS_KERNELS=eager never takes a backend. SKYREELS_KERNELS=triton takes every backend untested and raises what it
raises, with TRITON_INTERPRET=1 for tensors on the CPU as well: both are for finding faults.
"""

import copy
import functools
import importlib
import logging
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch

from .out_of_memory import is_out_of_memory
from .quantised_rows import QuantisedRows

log = logging.getLogger(__name__)
MODE = os.environ.get("SKYREELS_KERNELS", "").strip().lower()
OWN = "its own kernel"
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
REFUSED: dict[str, str] = {}  # operation -> why it runs without its backend, in this process
# One at a time is tried; what has been tried is read without the lock. A backend may call another operation.
_trying = threading.RLock()


class Operation:
    """A function with an eager reference and a backend; called like the reference.

    backend: "module:function" in this folder, or the function; it takes what the reference takes and returns
    NotImplemented, before it has written anything, for what it leaves to the reference.
    sample: called with a call's arguments, returns small ones of the same kind, fresh and on the CPU.
    tolerance: relative error of a result beside the reference's; the default is that of its dtype.
    devices: types of devices whose tensors the backend is for.  name: of the backend, for the log.
    optional: the backend is a package of this name, which most do not have; SKYREELS_KERNELS=triton leaves it out.
    """

    __name__: str  # of the reference

    def __init__(
        self,
        eager: Callable,
        backend: str | Callable,
        sample: Callable,
        tolerance=0.0,
        devices=("cuda",),
        name=OWN,
        optional=False,
    ):
        functools.update_wrapper(self, eager)
        self.eager = eager
        self.tolerance = tolerance
        self.devices = devices
        self.name = name
        self.optional = optional
        self._backend = backend
        self._sample = sample
        self._tried: dict[tuple, Callable | None] = {}
        self._reported: set[torch.device] = set()
        self._compiled: set[torch.device] = set()

    def __call__(self, x, *args, **options):
        """x: a tensor or QuantisedRows, whose device decides; then whatever the reference takes."""
        # A kernel cannot be launched for nothing, which is what a process may have of a shared sequence.
        left_out = MODE == "eager" or (MODE == "triton" and self.optional)
        if left_out or torch.compiler.is_compiling() or not self._is_for(x.device) or 0 in x.shape:
            return self.eager(x, *args, **options)
        if MODE == "triton":
            result = self.on_device(self._loaded(), x, *args, **options)
            return self.eager(x, *args, **options) if result is NotImplemented else result
        kind = (x.device, x.dtype, x.shape[-1], *map(_kind, args), *((n, _kind(v)) for n, v in options.items()))
        if kind not in self._tried:
            with _trying:
                if kind not in self._tried:
                    self._tried[kind] = self._try(x, args, options)
        fast = self._tried[kind]
        if fast is None:
            return self.eager(x, *args, **options)
        try:
            result = self.on_device(fast, x, *args, **options)
        except Exception as error:
            if is_out_of_memory(error):
                raise  # not the backend's fault: ComfyUI makes room and tries again
            # Raises where the arguments are at fault, and then the backend is not.
            result = self.eager(x, *args, **options)
            self._disable(kind, error)
            return result
        return self.eager(x, *args, **options) if result is NotImplemented else result

    def _is_for(self, device: torch.device) -> bool:
        return device.type in self.devices or (MODE == "triton" and INTERPRETED)

    def _loaded(self) -> Callable:
        if isinstance(self._backend, str):
            module, name = self._backend.split(":")
            self._backend = getattr(importlib.import_module(f".{module}", __package__), name)
        return self._backend

    def has_backend(self, device: torch.device) -> bool:
        """Whether the backend runs on a device, as far as is known before it is tried there.

        One that leaves whole devices to the reference says so by a function `runs_on` in its module.
        """
        if MODE == "eager" or not self._is_for(device):
            return False
        try:
            known = getattr(sys.modules[self._loaded().__module__], "runs_on", None)
        except ImportError:
            return False
        return known is None or known(device)

    def trial(self, x, *args, **options) -> Callable:
        """The backend, once it has computed a sample of such arguments as the reference does.

        Raises ArithmeticError where it has not, and whatever it raises.
        """
        fast = self._loaded()
        if self.name == OWN and x.device not in self._compiled:
            self._compiled.add(x.device)
            log.info("SkyReels-V3: compiling %s for %s, which takes seconds the first time.", self.__name__, x.device)
        wanted, options_wanted = self._sample(x, *args, **options)
        own, options_own = _moved((wanted, options_wanted), x.device)
        result = self.on_device(fast, *own, **options_own)
        if result is not NotImplemented:
            reference = self.eager(*wanted, **options_wanted)
            # The arguments too, since some are written to.
            if not _agree([result, *own], [reference, *wanted], self.tolerance):
                raise ArithmeticError("its results are wrong")
        return fast

    def _try(self, x, args: tuple, options: dict) -> Callable | None:
        """The backend if it computes what the reference does, else None; says why in the log."""
        try:
            return self.trial(x, *args, **options)
        except Exception as error:
            if is_out_of_memory(error):
                raise
            self._report(x.device, error)
            return None

    def _disable(self, kind: tuple, error: Exception) -> None:
        self._tried[kind] = None
        self._report(kind[0], error)

    def _report(self, device: torch.device, error: Exception) -> None:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        REFUSED.setdefault(self.__name__, reason)
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing and missing == ("triton" if self.name == OWN else self.optional and self.name):
            return  # as on most of Windows and macOS: nothing is wrong
        if device not in self._reported:
            self._reported.add(device)
            log.warning("SkyReels-V3: %s runs on %s without %s: %s", self.__name__, device, self.name, reason)

    @staticmethod
    def on_device(function: Callable, x, *args, **options):
        """Calls with x's device as the current one: kernels are launched there."""
        if x.device.type != "cuda":
            return function(x, *args, **options)
        with torch.cuda.device(x.device):
            return function(x, *args, **options)


def operation(backend: str, sample: Callable, tolerance: float = 0.0) -> Callable[[Callable], Operation]:
    """Decorates an eager reference; see Operation."""
    return lambda eager: Operation(eager, backend, sample, tolerance)


def normal(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Normal numbers on the CPU, always the same; the global random state stays as it is."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def _kind(argument):
    return type(argument) if isinstance(argument, torch.Tensor | QuantisedRows) else argument


def _moved(nested: Any, device: torch.device) -> Any:
    """A deep copy with its tensors on `device`."""
    if isinstance(nested, torch.Tensor):
        return nested.to(device, copy=True)
    if isinstance(nested, QuantisedRows):
        return nested.map(lambda tensor: tensor.to(device, copy=True))
    if isinstance(nested, list | tuple):
        return type(nested)(_moved(item, device) for item in nested)
    if isinstance(nested, dict):
        return {name: _moved(item, device) for name, item in nested.items()}
    return copy.copy(nested)


def _agree(own: list, wanted: list, least: float) -> bool:
    """Whether tensors and QuantisedRows agree as far as their dtype goes; None and numbers are skipped."""
    for mine, reference in zip(own, wanted, strict=True):
        if isinstance(reference, QuantisedRows):
            # A code may be the next one where a rotation was rounded otherwise.
            mine, reference, tolerance = mine.unpacked(), reference.unpacked(), 0.03
        elif isinstance(reference, torch.Tensor) and reference.is_floating_point():
            tolerance = max(torch.finfo(reference.dtype).eps, 1e-4, least)
        else:
            continue
        mine, reference = mine.float().cpu(), reference.float()
        if mine.shape != reference.shape or not (mine - reference).norm() <= tolerance * reference.norm():
            return False
    return True
