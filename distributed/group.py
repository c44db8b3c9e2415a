"""The processes that share forwards, seen from ComfyUI's: started, watched, ended, started again.

A forward is a function of its inputs: whatever goes wrong in one, the group is ended, started, and given the same
forward once more.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..skyreels_v3.errors import InputError
from ..skyreels_v3.model.chunking import SMALL
from ..skyreels_v3.model.memory import Keeping
from . import cluster
from .cluster import Lost, Processes
from .worker import DONE, NO_MEMORY, REFUSED, STOPPED

log = logging.getLogger(__name__)

LOOKS = 0.1  # seconds between two looks at the artist's wish to stop
PATIENCE = 60.0  # seconds without a new block until a process counts as dead; at least as long as a whole forward took
FIRST = 600.0  # as long as none has ended: kernels are tried and compiled in the first one
STARTING = 300.0  # to import torch and to find each other
EXCHANGING = 60.0  # for the first exchange, in which links are set up
LEAVING = 60.0  # for all to leave a forward that is stopped: a block takes seconds

# Bytes of a card that a process takes for itself: the driver's context, and what cards exchange by.
OVERHEAD = 12 * 10**8

Look = Callable[[], None]  # raises where the artist wants to stop


def nothing() -> None:
    """A Look of those whom nobody stops."""


@dataclass(frozen=True)
class Card:
    """What a process computes on. total: bytes of its memory; 0 for the processor."""

    machine: str
    name: str
    total: int
    card: str  # its unique id, "" for the processor


class Group:
    """`size` processes, a card each. Calls come one after the other: a second thread waits."""

    def __init__(self, size: int, patience: float = PATIENCE):
        self.size = size
        self.patience = patience
        self.processes: Processes | None = None
        self.cards: list[Card] = []
        self.rate = 0.0  # bytes a second that a card exchanges with the others
        self.models: dict[
            str, tuple[Mapping[str, Any], int, str]
        ] = {}  # key -> its spec, its files' size, a Keeping's value
        self.sizes: dict[str, int] = {}  # key -> bytes of its weights on each card
        self.longest = 0.0  # seconds of the longest forward
        self.restarts = 0
        self.users: set[str] = set()  # keys that somebody may still ask for
        self._number = 0  # of the last forward
        self._lock = threading.RLock()
        self._calling = False  # whether processes are waited for

    @property
    def smallest(self) -> int:
        """Bytes of the smallest card's memory that a process can use; 0 for processors."""
        return max(0, min((card.total for card in self.cards), default=0) - OVERHEAD)

    def describe(self) -> str:
        """What it is, in a sentence, once it has started."""
        machines = sorted({card.machine for card in self.cards})
        where = f" on {len(machines)} machines" if len(machines) > 1 else ""
        names = " and ".join(sorted({card.name for card in self.cards}))
        if self.size == 1:
            return f"One card ({names}) makes each step, in a process of its own."
        return f"{self.size} cards{where} ({names}) share each step; they exchange {self.rate / 1e9:.2g} GB/s."

    def start(self, look: Look = nothing) -> None:
        """Starts the processes if none are there, and gives them the models that they had.

        Raises InputError where cards, packages or machines do not suffice, and Lost where a model is not loaded.
        """
        if self.processes is not None:
            return
        begun = time.monotonic()
        try:
            self.processes = Processes(self.size)
            host = self.processes.meet(STARTING)
            about = self._all("describe", limit=STARTING, look=look)
            self.processes.pids = [one["pid"] for one in about]
            self.cards = [Card(one["machine"], one["name"], one["total"], one["card"]) for one in about]
            _check_alike(about)
            address = self._call([0], "meeting", host, limit=STARTING, look=look)[0]
            self._all("join", address, limit=STARTING, look=look)
            self.rate = min(self._all("measure", limit=EXCHANGING, look=look))
            log.info("SkyReels-V3: %s Started in %.0f s.", self.describe(), time.monotonic() - begun)
        except Lost as lost:
            self.end()
            raise InputError(
                f"The {self.size} processes that share a forward did not start ({lost.why}): where cards do not reach "
                "each other, start ComfyUI with NCCL_P2P_DISABLE=1; over machines, with NCCL_SOCKET_IFNAME set to the "
                "network card. docs/several-devices.md says more."
            ) from None
        except BaseException:
            self.end()
            raise
        for key in list(self.models):
            self._load(key, look)

    def end(self) -> None:
        """Ends the processes. They start again when they are needed."""
        if self.processes is not None:
            self.processes.end()
        self.processes = None

    def load(
        self, key: str, spec: Mapping[str, Any], size: int, look: Look = nothing, keeping: str = Keeping.WHOLE.value
    ) -> int:
        """Bytes of a model's weights on each card, where they are from now on. spec, size, keeping: see Worker.load."""
        with self._lock:
            self._drop_unused()
            if self.models.get(key, (spec, size, keeping))[2] != keeping:
                self.sizes.pop(key, None)
            self.models[key] = spec, size, keeping
            return self._loaded(key, look)

    def _loaded(self, key: str, look: Look) -> int:
        try:
            self.start(look)
            if key not in self.sizes:
                self._load(key, look)
        except BaseException as error:
            self.models.pop(key, None)
            if isinstance(error, Lost):
                self.end()
            if isinstance(error, NoMemory):
                raise InputError(
                    f"The weights do not fit on the cards ({error.why}): choose a smaller precision in Load Model, or "
                    "more cards."
                ) from None
            if isinstance(error, Lost):
                raise InputError(
                    f"A process that shares the model ended while it was loaded ({error.why}): queue it again, or set "
                    "gpus to 1."
                ) from None
            raise
        return self.sizes[key]

    def drop(self, key: str) -> None:
        """Gives a model's memory on the cards back."""
        with self._lock:
            self.sizes.pop(key, None)
            if self.models.pop(key, None) is not None:
                self._quietly("drop", key)

    def forget(self, key: str) -> None:
        """Nobody asks for a model any more: its memory is given back at once, or before the next call.

        May be called at any time, such as when Python takes away what is not used, in the middle of another call.
        """
        self.users.discard(key)
        if self._lock.acquire(blocking=False):
            try:
                if not self._calling:
                    self._drop_unused()
            finally:
                self._lock.release()

    def rest(self) -> None:
        """Lets the processes give back what only a forward needs."""
        with self._lock:
            self._drop_unused()
            self._quietly("rest")

    def _drop_unused(self) -> None:
        for key in [key for key in self.models if key not in self.users]:
            self.drop(key)

    def forward(self, key: str, message: Mapping[str, Any], look: Look = nothing) -> torch.Tensor:
        """What Worker.forward gives. Raises what `look` raises, soon after it does, and InputError."""
        with self._lock:
            return self._tried(key, message, look)

    def ask(self, method: str, *args: Any, limit: float = FIRST) -> list[Any]:
        """What a method of Worker gives in every process, within so many seconds; nobody stops it.

        Raises Lost or InputError where there is none: with Lost the processes are ended.
        """
        with self._lock:
            try:
                self.start()
                return self._all(method, *args, limit=limit)
            except Lost:
                self.end()
                raise

    def _tried(self, key: str, message: Mapping[str, Any], look: Look) -> torch.Tensor:
        tried: list[str] = []
        while True:
            try:
                self.start(look)
                return self._forward(key, message, look)
            except Lost as lost:
                self.end()
                tried.append(lost.why)
                if len(tried) > 1:
                    raise InputError(
                        f"The cards lost a process twice in one step ({tried[-1]}): look whether memory ran out, or "
                        "set gpus to a smaller number. What is finished is kept."
                    ) from None
                if isinstance(lost, NoMemory):
                    smallest = SMALL.long, SMALL.tokens, SMALL.head_groups
                    message = {**message, "chunking": smallest, "cache": 0}
                self.restarts += 1
                log.warning("SkyReels-V3: the processes that share a forward are started anew (%s).", lost.why)

    def _forward(self, key: str, message: Mapping[str, Any], look: Look) -> torch.Tensor:
        self._number += 1
        number, begun = self._number, time.monotonic()
        limit = max(self.patience, self.longest) if self.longest else max(self.patience, FIRST)
        asked = self._processes.ask("forward", number, key, cluster.put(dict(message)))
        answers = self._until(asked, limit, look, number)
        self.longest = max(self.longest, time.monotonic() - begun)
        return answers[0]

    @property
    def _processes(self) -> Processes:
        if self.processes is None:
            raise Lost("the processes have ended")
        return self.processes

    def _load(self, key: str, look: Look) -> None:
        spec, size, keeping = self.models[key]
        self.sizes[key] = max(self._all("load", key, size, dict(spec), keeping, limit=FIRST, look=look))

    def _quietly(self, method: str, *args: Any) -> None:
        """A call that must not fail: where the processes are gone, there is nothing to give back."""
        if self.processes is None:
            return
        try:
            self._all(method, *args, limit=EXCHANGING)
        except (Lost, InputError) as error:
            log.warning("SkyReels-V3: the processes that share a forward are ended (%s).", error)
            self.end()

    def _all(self, method: str, *args: Any, limit: float, look: Look = nothing) -> list[Any]:
        return self._call(range(self.size), method, *args, limit=limit, look=look)

    def _call(self, ranks: Any, method: str, *args: Any, limit: float, look: Look = nothing) -> list[Any]:
        answers = self._until(self._processes.ask(method, *args, ranks=list(ranks)), limit, look)
        return [answers[rank] for rank in sorted(answers)]

    def _until(self, asked: dict[Any, int], limit: float, look: Look, forward: int = 0) -> dict[int, Any]:
        """All answers. limit: seconds in all, or, of a forward, without a new block."""
        answers: dict[int, Any] = {}
        watch, self._calling = _Watch(self._processes, limit, self.patience, bool(forward)), True
        try:
            while asked:
                for rank, outcome in self._processes.answers(asked, LOOKS).items():
                    answers[rank] = _value(outcome)
                watch.check(asked.values())
                try:
                    look()
                except BaseException:
                    self._leave(asked, forward)
                    raise
        finally:
            self._calling = False
        return answers

    def _leave(self, asked: dict[Any, int], forward: int) -> None:
        """All processes leave what they do; a group of which one does not is ended."""
        try:
            if not forward:
                raise Lost("stopped in the middle of a start")
            self._processes.tell(0, "stop", forward)
            until = time.monotonic() + LEAVING
            while asked:
                self._processes.answers(asked, LOOKS)
                if time.monotonic() > until:
                    raise Lost("a process did not stop")
        except Lost as lost:
            log.warning("SkyReels-V3: the processes that share a forward are ended (%s).", lost.why)
            self.end()


class NoMemory(Lost):
    """A card ran out of memory, and the others wait for it."""


def _value(outcome: tuple[str, Any]) -> Any:
    """What a call has given. Raises InputError for what is refused, Lost for what went wrong."""
    status, value = outcome
    if status == DONE:
        return value
    if status == REFUSED:
        raise InputError(value)
    if status == NO_MEMORY:
        raise NoMemory(f"out of memory on {value}")
    if status == STOPPED:
        return None
    log.warning("SkyReels-V3: a process that shares a forward failed:\n%s", value)
    raise Lost(value.strip().splitlines()[-1])


class _Watch:
    """Looks whether the processes live and get anywhere.

    limit: seconds in all, or (`by_blocks`) without a new block.  patience: seconds that one may answer nothing.
    """

    def __init__(self, processes: Processes, limit: float, patience: float, by_blocks: bool):
        self.processes, self.limit, self.patience, self.by_blocks = processes, limit, patience, by_blocks
        self.since = self.begun = time.monotonic()
        self.blocks = -1
        self.asked: dict[Any, int] = {}
        self.asked_at: dict[int, float] = {}  # by rank, as is the next
        self.heard: dict[int, float] = {}

    def check(self, ranks: Iterable[int]) -> None:
        """Raises Lost where they do not. ranks: those that have yet to answer the call.

        Of blocks the first process stands for all: they wait for each other.
        """
        now, ranks = time.monotonic(), set(ranks)
        for rank in ranks - {*self.asked.values()}:
            if now - self.asked_at.get(rank, self.begun) > 1:
                self.asked[self.processes.tell(rank, "progress")] = rank
                self.asked_at[rank] = now
        if self.asked:
            for rank, blocks in self.processes.answers(self.asked, 0).items():
                self.heard[rank] = now
                if self.by_blocks and rank == 0 and blocks != self.blocks:
                    self.blocks, self.since = blocks, now
        silent = max((now - self.heard.get(rank, self.begun) for rank in ranks), default=0)
        if now - self.since > self.limit or silent > self.patience:
            raise Lost(f"no sign of life for {max(silent, now - self.since):.0f} s")


def _check_alike(about: list[dict[str, Any]]) -> None:
    """Raises InputError where processes differ in what must be the same, or two have the same card."""
    first = about[0]
    for one in about[1:]:
        for what in ("torch", "python"):
            if one[what] != first[what]:
                raise InputError(
                    f"{one['machine']} has {what} {one[what]}, but {first['machine']} has {first[what]}: install the "
                    "same version on both."
                )
    cards = [(one["machine"], one["card"]) for one in about if one["card"]]
    twice = next((card for card in cards if cards.count(card) > 1), None)
    if twice is not None:
        raise InputError(f"Two processes were given the same card on {twice[0]}: set gpus to the number of cards.")
