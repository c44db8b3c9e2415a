"""What a card would hold, move, compute and be waited for, counted operation by operation."""

import contextlib
import traceback
import weakref
from collections import Counter
from collections.abc import Generator, Mapping
from math import inf, prod
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from pack.skyreels_v3.jobs.estimates.rates import REACHED, Rates

from .profiles import Card
from .refusals import refused

aten: Any = torch.ops.aten
HERE = str(Path(__file__).parent)
PAGE = 512  # bytes by which torch's allocator rounds up
COMPUTED = 2**24  # numbers of a tensor on the host that are really computed; of larger ones nothing is known
LAUNCH = 2e-6  # seconds that a kernel takes at least
WAIT = 50e-6  # seconds that a card idles when the host has waited for it
LAUNCHES, WAITS = "launches", "waits"
# What a kernel is for; others by whether they multiply.
PARTS = {"int8_kernel": "products", "attention": "attention"}
PARTS |= dict.fromkeys(("quantise_kernel", "quantising"), "quantising") | {"unpacking": "unpacking"}
Work = tuple[str, float, float, str]  # what a kernel is for, its bytes, its operations and at which of the rates
PRODUCTS = {aten.mm.default, aten.addmm.default, aten.addmm_.default, aten.bmm.default, aten.baddbmm.default}
EMPTY = {
    aten.empty.memory_format,
    aten.empty_strided.default,
    aten.new_empty.default,
    aten.new_empty_strided.default,
    aten.empty_like.default,
}
VIEWS = {
    f"aten::{name}"
    for name in (
        "view _unsafe_view reshape as_strided expand permute transpose t slice select split split_with_sizes chunk "
        "unbind unsqueeze squeeze alias detach view_as_real view_as_complex unflatten flatten narrow lift_fresh "
        "is_pinned _reshape_alias diagonal unfold movedim view_as"
    ).split()
}


class CardlessMode(FakeTensorMode):
    """torch.cuda says that there is a card; this knows that there is none to start."""

    avoid_device_init = True


class Meter(TorchDispatchMode):
    """Counts while it is entered. All counters are by category, of which `of` names the present one.

    live, peak: bytes by place ("cuda", "cpu").  moved: bytes read and written.  launches: kernels.  work: how many of
    each.  waits: of the host, by the line of code that caused them.  copied: bytes over the link.
    """

    def __init__(self, card: Card):
        super().__init__()
        self.card = card
        self.mode = CardlessMode(allow_non_fake_inputs=True)
        self.live: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self.moved: Counter[str] = Counter()
        self.work: Counter[Work] = Counter()
        self.launches: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()
        self.copied: Counter[str] = Counter()
        self.pinned: weakref.WeakSet[Any] = weakref.WeakSet()  # storages
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()
        self._categories = ["other"]

    def clear(self) -> None:
        """Everything begins at 0 again but for what lives."""
        for counter in (self.moved, self.work, self.launches, self.waits, self.copied):
            counter.clear()
        self.forget_peak()

    def forget_peak(self) -> None:
        """The most memory is what lives now."""
        self.peak = Counter(self.live)

    @contextlib.contextmanager
    def of(self, category: str) -> Generator[None]:
        self._categories.append(category)
        try:
            yield
        finally:
            self._categories.pop()

    def count(self, moved: float, operations: float = 0.0, rate: str = "half", reached: float = 1.0) -> None:
        """One kernel that moves so many bytes and does so many operations, at a part of one of Rates."""
        category = self._categories[-1]
        self.moved[category] += int(moved)
        self.launches[category] += 1
        part = PARTS.get(category, "products" if operations else "between")
        self.work[part, moved, operations / reached, rate] += 1

    def wait(self, what: str) -> None:
        """The host waits for the card, because of the innermost line that is neither torch's nor of this folder."""
        frames = [f for f in traceback.extract_stack() if "site-packages" not in f.filename and HERE not in f.filename]
        where = f"{'/'.join(Path(frames[-1].filename).parts[-2:])}:{frames[-1].lineno}" if frames else "?"
        self.waits[f"{what} at {where}"] += 1

    def hold(self, tensor: object) -> None:
        """Counts the memory of a tensor until it is freed."""
        if not isinstance(tensor, FakeTensor):
            return
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._known.add(storage)
        place, size = tensor.fake_device.type, storage.nbytes()
        if place == self.card.device:
            size = -(-size // PAGE) * PAGE
        self.live[place] += size
        self.peak[place] = max(self.peak[place], self.live[place])
        weakref.finalize(storage, self._freed, place, size)

    def _freed(self, place: str, size: int) -> None:
        self.live[place] -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None):
        args, kwargs = tree_map(self.indexed, (args, kwargs or {}))
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, FakeTensor)]
        if not given and self._is_for_the_host(args, kwargs):
            with _disable_current_modes():
                return func(*args, **kwargs)
        if func is torch.ops.prim.device.default:
            return func(*args, **kwargs)
        on_card = any(t.fake_device.type == self.card.device for t in given)
        if func is aten.is_pinned.default:
            return args[0].untyped_storage() in self.pinned
        if func in (aten._local_scalar_dense.default, aten.equal.default, aten.nonzero.default) and on_card:
            self.wait(func.name().removeprefix("aten::"))
        if func is aten._local_scalar_dense.default:
            return True if given[0].dtype == torch.bool else 0.0 if given[0].is_floating_point() else 1
        if func is aten.equal.default:
            return True
        args, kwargs = tree_map(self._fake, (args, kwargs))
        made = self._made(func, args, kwargs)
        self._work(func, args, kwargs, given, [t for t in tree_leaves(made) if isinstance(t, FakeTensor)])
        return made

    def _made(self, func: Any, args: tuple, kwargs: dict):
        problem = refused(self.card, func, args, kwargs)
        if problem:
            raise RuntimeError(problem)
        made = func(*args, **kwargs)
        for tensor in tree_leaves(made):
            self.hold(tensor)
        if self.card.unfolds and func is aten.convolution.default:
            # For every place of one picture (or video) of the batch what the kernel reads there, side by side.
            columns = args[1][0].numel() * made[0, 0].numel() * made.element_size()
            held = self.live[self.card.device] + columns
            self.peak[self.card.device] = max(self.peak[self.card.device], held)
        return made

    def indexed(self, value: object):
        """A device with its index: the guard of torch_device.py knows none."""
        bare = isinstance(value, torch.device) and value.type == self.card.device and value.index is None
        return torch.device(self.card.device, 0) if bare else value

    def _fake(self, value: object):
        real = isinstance(value, torch.Tensor) and not isinstance(value, FakeTensor) and value.device.type == "cpu"
        return self.mode.from_tensor(value) if real else value

    def _is_for_the_host(self, args: tuple, kwargs: dict) -> bool:
        """Whether an operation on no fake tensor is one of small real numbers on the host: those are computed."""
        devices = [torch.device(d) for d in (kwargs.get("device"),) if d is not None]
        devices += [arg for arg in args if isinstance(arg, torch.device)]
        if any(device.type == self.card.device for device in devices):
            return False
        if any(isinstance(t, torch.Tensor) for t in tree_leaves((args, kwargs))):
            return True
        shape = args[0] if args and isinstance(args[0], list | tuple | torch.Size) else ()
        size = prod(part for part in shape if isinstance(part, int))
        return size <= COMPUTED or any(device.type == "meta" for device in devices)

    def _work(self, func: Any, args: tuple, kwargs: dict, given: list[FakeTensor], made: list[FakeTensor]) -> None:
        card = self.card.device
        places = {t.fake_device.type for t in (*given, *made)}
        if card not in places or func._schema.name in VIEWS or func in EMPTY:
            return
        if func in (aten._to_copy.default, aten.copy_.default) and len(places) > 1:
            self._copy(args[1] if func is aten.copy_.default else args[0])
            return
        moved = sum(size_of(t) for t in given if t.fake_device.type == card)
        moved += sum(size_of(t) for t in made if not any(t is one for one in given))
        if func._schema.is_mutable and func is not aten.copy_.default and isinstance(args[0], torch.Tensor):
            moved += size_of(args[0])
        self.count(moved, *self._arithmetic(func, args, made))

    def _copy(self, source: torch.Tensor) -> None:
        size = source.numel() * source.element_size()
        down = isinstance(source, FakeTensor) and source.fake_device.type == self.card.device
        if down:
            way = "to the host"
        else:
            way = "from pinned memory" if source.untyped_storage() in self.pinned else "from pageable memory"
        self.copied[way] += size
        if size and way != "from pinned memory":
            self.wait(f"copy {way}")

    def _arithmetic(self, func: Any, args: tuple, made: list[FakeTensor]) -> tuple[float, str, float]:
        if func in PRODUCTS:
            a, b = [t for t in args if isinstance(t, torch.Tensor) and t.dim() >= 2][-2:]
            return 2.0 * a.numel() * b.shape[-1], "half", _reached(a.dtype)
        if func is aten.linear.default:
            return 2.0 * args[0].numel() * args[1].shape[0], "half", _reached(args[0].dtype)
        if func is aten._int_mm.default:
            return 2.0 * args[0].numel() * args[1].shape[1], "int8", REACHED
        if func is aten._scaled_mm.default:
            return 2.0 * args[0].numel() * args[1].shape[1], "fp8", 1.0
        if func is aten.convolution.default:
            return 2.0 * made[0].numel() * args[1][0].numel(), "half", _reached(args[1].dtype)
        return 0.0, "half", 1.0


def _reached(dtype: torch.dtype) -> float:
    return 1.0 if dtype.itemsize == 2 else 1 / 8


def seconds(work: Mapping[Work, float], waits: int, rates: Rates) -> Counter[str]:
    """What work takes by the roofline, by what it is for ("products", what is "between" them ...) or, where nothing but
    a launch binds it, as "launches". waits: of the host.
    """
    found = Counter({WAITS: waits * WAIT})
    for (part, moved, operations, rate), count in work.items():
        speed = getattr(rates, rate)
        took = max(moved / rates.bandwidth, (operations / speed if speed else inf) if operations else 0.0)
        found[part if took >= LAUNCH else LAUNCHES] += count * max(took, LAUNCH)
    return found


def size_of(tensor: torch.Tensor) -> int:
    """Bytes of a tensor's numbers; of expanded ones those that are stored."""
    stored = prod(size if stride or not size else 1 for size, stride in zip(tensor.shape, tensor.stride()))
    return tensor.element_size() * stored
