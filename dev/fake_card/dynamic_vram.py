"""Dynamic VRAM of ComfyUI 0.33 without the library of the card that it stands on: who is resident, and what is copied.

Its addresses are tensors here. A weight that is asked for stays on the card where the budget has room, else it comes
anew; nothing that came is driven out, as on a card that no other program wants memory of.
"""

import importlib
import sys
from typing import Any

import torch

from .meter import Meter

Place = tuple["Memory", int, int]  # whose, where it begins, its bytes


class Memory:
    """Of one device. budget: bytes that may be resident, of all models together.  pinned: of the host."""

    budget = 0
    resident = 0
    made: "list[Memory]" = []

    def __init__(self, size: int, device: int):
        self.size_at_most, self.device = size, torch.device("cuda", device)
        self.made.append(self)

    @classmethod
    def held(cls) -> int:
        """Bytes on the card."""
        return sum(one.bytes() for one in cls.made)

    @classmethod
    def pinned(cls) -> int:
        """Weights that may not leave the card: between two steps there are none."""
        return sum(sum(one.pins.values()) for one in cls.made if isinstance(one, Weights))

    @classmethod
    def forget(cls) -> None:
        """All models are gone."""
        cls.made.clear()
        Memory.resident = 0

    def bytes(self) -> int:
        raise NotImplementedError

    def at(self, start: int, size: int) -> torch.Tensor:
        raise NotImplementedError


class Weights(Memory):
    """Of one model, as comfy_aimdo.model_vbar.ModelVBAR."""

    def __init__(self, size: int, device: int):
        super().__init__(size, device)
        self.end, self.pages, self.pins = 0, dict[int, torch.Tensor](), dict[int, int]()

    def bytes(self) -> int:
        return sum(page.numel() for page in self.pages.values())

    loaded_size = bytes

    def prioritize(self, *_: object) -> None: ...

    def alloc(self, size: int) -> Place:
        start, self.end = self.end, self.end + size
        assert self.end <= self.size_at_most
        return self, start, size

    def fault(self, start: int, size: int) -> tuple[int, int] | None:
        """A signature where the weight is, or may be, on the card."""
        if start not in self.pages:
            if Memory.resident + size > Memory.budget:
                return None
            Memory.resident += size
            self.pages[start] = torch.empty(size, dtype=torch.uint8, device=self.device)
        self.pins[start] = self.pins.get(start, 0) + 1
        return start, size

    def unpin(self, start: int, size: int) -> None:
        if start in self.pages:
            self.pins[start] -= 1
            assert self.pins[start] >= 0, "a weight is given back more often than it was taken"

    def free_memory(self, size: float) -> int:
        free = [start for start in self.pages if not self.pins.get(start)] if size else []
        freed = sum(self.pages.pop(start).numel() for start in free)
        Memory.resident -= freed
        return freed

    def at(self, start: int, size: int) -> torch.Tensor:
        return self.pages[start][:size]


class Transit(Memory):
    """What a stream copies into, as comfy_aimdo.vram_buffer.VRAMBuffer."""

    def __init__(self, size: int, device: int):
        super().__init__(size, device)
        self.content = torch.empty(0, dtype=torch.uint8, device=self.device)

    def bytes(self) -> int:
        return self.content.numel()

    size = bytes

    def get(self, size: int, offset: int = 0) -> Place:
        if size + offset > self.bytes():
            self.content = torch.empty(size + offset, dtype=torch.uint8, device=self.device)
        return self, offset, size

    def at(self, start: int, size: int) -> torch.Tensor:
        return self.content[start : start + size]


class HostBuffer:
    """As comfy_aimdo.host_buffer.HostBuffer; holds nothing, because pins are tensors of their own."""

    def __init__(self, *_: object, **__: object):
        self.size = 0

    def truncate(self, size: int, **_: object) -> None: ...


def installed() -> bool:
    return getattr(sys.modules.get("comfy_aimdo.model_vbar"), "ModelVBAR", None) is Weights


def install() -> None:
    """Lets the ComfyUI of this process take it for its library, as its start does where that works."""
    vbar: Any = importlib.import_module("comfy_aimdo.model_vbar")
    vbar.ModelVBAR = Weights
    vbar.vbar_fault = lambda place: place[0].fault(*place[1:])
    vbar.vbar_unpin = lambda place: None if place is None else place[0].unpin(*place[1:])
    vbar.vbar_signature_compare = lambda one, other: one is not None and one == other
    replaced: Any = importlib.import_module("comfy_aimdo.vram_buffer")
    replaced.VRAMBuffer = Transit
    replaced = importlib.import_module("comfy_aimdo.host_buffer")
    replaced.HostBuffer = HostBuffer
    replaced = importlib.import_module("comfy_aimdo.torch")
    replaced.aimdo_to_tensor = lambda place, _: place[0].at(*place[1:])
    replaced = importlib.import_module("comfy.memory_management")
    replaced.aimdo_enabled = True
    replaced = importlib.import_module("comfy.model_patcher")
    replaced.CoreModelPatcher = replaced.ModelPatcherDynamic


def pin_into(meter: Meter, management: Any) -> None:
    """Memory of the host is pinned as far as ComfyUI's limit goes, and told to the meter."""

    def pin_memory(module: Any, subset: str = "weights", size: int | None = None) -> None:
        size = size or importlib.import_module("comfy.memory_management").vram_aligned_size(
            [module.weight, module.bias]
        )
        pins = module.__dict__.setdefault("_pins", {}).setdefault(subset, {})
        if "pin" in pins or management.TOTAL_PINNED_MEMORY + size > management.MAX_PINNED_MEMORY:
            return
        management.TOTAL_PINNED_MEMORY += size
        pins.update(pin=torch.empty(size, dtype=torch.uint8), registered=True)
        meter.pinned.add(pins["pin"].untyped_storage())

    replaced: Any = importlib.import_module("comfy.pinned_memory")
    replaced.pin_memory = pin_memory
