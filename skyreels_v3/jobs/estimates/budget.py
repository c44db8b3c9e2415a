"""What a job will need on a machine, whether it fits, and which settings would: from sizes alone, before it runs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from ...errors import InputError
from ...images.sizes import RESOLUTIONS, bucket_size, snap_frames, snap_size
from ...model.chunking import USUAL, Chunking
from ...model.memory import (
    PLAIN,
    Keeping,
    LayerCopies,
    block_numbers,
    chunking_for,
    keeping_for,
    needed_bytes,
    streamed_bytes,
)
from ...model.params import TransformerParams
from ...recipes import FRAMES_PER_LATENT, RECIPES, Job, TimeStep, latent_frames, tokens
from ...units import gb
from .. import reference
from ..avatar.plan import Timing
from ..extension.plan import FPS, ROLL_FRAMES, continue_rolls, cut_roll
from ..extension.script import CUT_SECONDS
from ..spec import SPECS

SHORTEST = 25  # frames: no one is helped by a video below a second


@dataclass(frozen=True)
class Machine:
    """Where a job is to run; all but the device are bytes.

    device: torch's name of its kind ("cuda", "cpu" ...).  vram, ram: in all.  vram_free, ram_free: what a job can have.
    reserve: of the VRAM, what ComfyUI leaves to others.
    """

    device: str
    vram: int
    vram_free: int
    ram: int
    ram_free: int
    reserve: int

    @property
    def streams(self) -> bool:
        """Whether weights can wait in RAM: not where the device computes in RAM itself."""
        return self.device not in ("cpu", "mps")

    def room(self, weights: int, layers: int) -> int:
        """Bytes that a forward of a network of so many layers can have at most, its weights streamed."""
        return self.vram - self.reserve - (streamed_bytes(weights, layers) if self.streams else weights)

    def check_forward(self, need: int) -> None:
        """Raises InputError where a forward alone, without any weights, is larger than the card. need: bytes."""
        if self.streams and need > self.vram:
            raise InputError(
                f"A forward needs {gb(need)} of VRAM beside the weights, but there are {gb(self.vram)}: choose a "
                "smaller size; SkyReels-V3 Plan says which one fits."
            )


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model."""

    params: TransformerParams
    job: Job
    itemsize: int  # bytes of a number of the stream
    weights: int  # bytes
    precision: str  # its name
    smaller: Mapping[str, float]  # precisions that it may be loaded in to save memory, and their bytes a number
    cards: int = 1  # that share each forward
    copies: LayerCopies = PLAIN

    @property
    def float32_time(self) -> frozenset[TimeStep]:
        return RECIPES[self.job].float32_time


@dataclass(frozen=True)
class Size:
    """What one forward makes. width, height: pixels.  frames: of video.  latents: its latent frames.

    context: latent frames beside them (references, the past).  batch: videos side by side.
    notes: what was changed of what was asked for, one sentence each.
    """

    width: int
    height: int
    frames: int
    latents: int
    context: int
    batch: int = 1
    notes: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """Of one forward, the whole batch."""
        return self.batch * tokens(self.latents + self.context, self.height, self.width)


@dataclass(frozen=True)
class Budget:
    """What one forward of a model needs on a machine."""

    network: LoadedModel
    size: Size
    machine: Machine

    @property
    def chunking(self) -> Chunking:
        """How a long sequence is chunked here: no smaller than it must be."""
        network, machine = self.network, self.machine
        sizes = network.params, self.size.tokens, network.itemsize, machine.vram
        return chunking_for(*sizes, self.room, network.cards, network.copies, network.float32_time)

    @property
    def keeping(self) -> Keeping:
        """Where the weights of a model are that several cards share."""
        network, machine = self.network, self.machine
        sizes = network.params, network.weights, self.size.tokens, network.itemsize
        return keeping_for(*sizes, machine.vram, machine.vram - machine.reserve, network.cards, network.float32_time)

    @property
    def held(self) -> int:
        """Bytes of the weights that each of several cards has."""
        network = self.network
        return self.keeping.bytes(network.weights, network.params.num_layers, network.cards)

    @property
    def room(self) -> int:
        """Bytes that a forward can have at most on a card."""
        network, machine = self.network, self.machine
        if network.cards > 1:
            return machine.vram - machine.reserve - self.held
        return machine.room(network.weights, network.params.num_layers)

    @property
    def forward(self) -> int:
        """Bytes of a forward beside the weights."""
        network, machine = self.network, self.machine
        sizes = network.params, self.size.tokens, network.itemsize, machine.vram
        return needed_bytes(*sizes, self.chunking, network.cards, network.copies, network.float32_time)

    @property
    def least(self) -> int:
        """Bytes below which the job cannot run, even with everything streamed that can be."""
        return self.forward + self.machine.vram - self.room

    @property
    def fits(self) -> bool:
        return self.least <= self.machine.vram

    @property
    def streamed(self) -> int:
        """Bytes of the weights that come from RAM in each step; 0 where all stay on the card."""
        room = self.machine.vram_free - self.forward - self.machine.reserve
        if not self.machine.streams or self.network.cards > 1 or self.network.weights <= room:
            return 0
        ahead = streamed_bytes(self.network.weights, self.network.params.num_layers)
        return self.network.weights - max(0, room - ahead)

    def describe(self) -> tuple[str, ...]:
        """The budget as lines to read before it starts, the verdict last."""
        size, machine, network = self.size, self.machine, self.network
        context = SPECS[network.job].condition
        beside = f" ({size.context} of {size.context + size.latents} latent frames are {context})" if context else ""
        batch = f", {size.batch} side by side" if size.batch > 1 else ""
        on_each = f"on each of {network.cards} cards: " if network.cards > 1 else ""
        lines = [
            f"{size.width} x {size.height}, {size.frames} frames{batch}: {size.tokens:,} tokens a forward{beside}",
            f"{on_each}weights {gb(network.weights)} ({network.precision}), a forward {gb(self.forward)}",
        ]
        if self.chunking != USUAL:
            lines.append(
                f"in smaller parts, to fit: {self.chunking.tokens:,} tokens and one of "
                f"{self.chunking.head_groups} groups of heads at a time"
            )
        if machine.streams:
            lines.append(f"VRAM {gb(machine.vram)}, free {gb(machine.vram_free)}")
        return *size.notes, *lines, f"RAM {gb(machine.ram)}, free {gb(machine.ram_free)}", self.verdict()

    def verdict(self) -> str:
        """Whether it fits and how, in one sentence."""
        machine = self.machine
        if not self.fits:
            return self.problem()
        if not machine.streams:
            return "It fits: there is no graphics card with memory of its own, so everything stays in RAM."
        if self.least > machine.vram_free:
            missing = gb(self.least - machine.vram_free)
            return f"It fits once other programs give back {missing} of VRAM: close some."
        if self.streamed:
            return f"It fits: {gb(self.streamed)} of {gb(self.network.weights)} of weights are streamed in each step."
        if self.network.cards > 1 and self.keeping is Keeping.SPLIT:
            return f"It fits: each card keeps a part of the weights, {gb(self.held)} with what comes from the others."
        if self.network.cards > 1 and self.keeping is Keeping.IN_RAM:
            if self.network.weights > machine.ram_free:
                return (
                    f"The cards have room for two blocks at a time, but RAM, where the weights must stay, has "
                    f"{gb(machine.ram_free)} free of the {gb(self.network.weights)} that they need: close other "
                    "programs, or choose a smaller precision, fewer frames or more cards."
                )
            return (
                f"It fits: the weights stay in RAM, {gb(self.network.weights)} in all, and come to the cards block by "
                f"block, {gb(self.held)} at a time."
            )
        return f"It fits: all weights stay on {'each' if self.network.cards > 1 else 'the'} card."

    def problem(self) -> str:
        """Why a budget that does not fit cannot run and what would, in one sentence."""
        size, memory = self.size, "VRAM" if self.machine.streams else "RAM"
        batch = f"{size.batch} videos of " if size.batch > 1 else ""
        settings = ways(self)
        end = f"with {_either(settings)} it fits" if settings else "no smaller setting fits, only more memory"
        return (
            f"{batch}{size.width} x {size.height} with {size.frames} frames cannot fit: it needs at least "
            f"{gb(self.least)} of {memory}, but there are {gb(self.machine.vram)}; {end}."
        )


def planned_size(job: Job, width: int, height: int, frames: int = 0, batch: int = 1) -> Size:
    """The size of one forward nearest to what is asked for; frames 0: the job's own.

    Longer extensions are made roll by roll: their frames are cut to those of the longest roll.
    Raises InputError for sizes and lengths that make no video.
    """
    width, height, notes = snap_size(width, height)
    frames = frames or SPECS[job].frames
    if job in (Job.EXTENSION, Job.SHOT):
        shortest = CUT_SECONDS[0] * FPS if job is Job.SHOT else 1
        new = min(max(frames, shortest), ROLL_FRAMES)
        seconds = Fraction(new, FPS)
        roll = cut_roll(seconds) if job is Job.SHOT else continue_rolls(seconds)[0]
        if new != frames:
            notes += (f"{frames} frames became {new}, which is what one forward makes.",)
        return Size(width, height, new, roll.latent_frames, latent_frames(roll.prefix_frames), batch, notes)
    if job is Job.REFERENCE:
        plan = reference.plan_reference([(width, height)], width=width, height=height, frames=frames)
        return Size(width, height, plan.frames, plan.latent_frames, reference.SLOTS, batch, notes + plan.notes)
    window, frame_notes = snap_frames(RECIPES[job].fps, reference.MAX_SECONDS, frames=frames)
    return Size(width, height, window, Timing(window).latents, 0, batch, notes + frame_notes)


Option = tuple[str, Budget]  # a setting in words, and the budget with it


def batches(budget: Budget) -> Iterator[Option]:
    for count in range(budget.size.batch - 1, 0, -1):
        yield f"batch_size {count}", replace(budget, size=replace(budget.size, batch=count))


def resolutions(budget: Budget) -> Iterator[Option]:
    size = budget.size
    for name in reversed(RESOLUTIONS):
        width, height = bucket_size(size.width, size.height, name, budget.network.job)
        if width * height < size.width * size.height:
            yield f"{name} ({width} x {height})", replace(budget, size=replace(size, width=width, height=height))


def lengths(budget: Budget) -> Iterator[Option]:
    size = budget.size
    for frames in range(size.frames - FRAMES_PER_LATENT, SHORTEST - 1, -FRAMES_PER_LATENT):
        shorter = planned_size(budget.network.job, size.width, size.height, frames, size.batch)
        if shorter.frames < size.frames:
            yield f"{shorter.frames} frames", replace(budget, size=shorter)


def precisions(budget: Budget) -> Iterator[Option]:
    params = budget.network.params
    for name, each in budget.network.smaller.items():
        weights = int(block_numbers(params) * params.num_layers * each)
        if name != budget.network.precision and weights < budget.network.weights:
            yield (
                f"the precision {name}",
                replace(budget, network=replace(budget.network, weights=weights, precision=name)),
            )


SETTINGS: tuple[Callable[[Budget], Iterator[Option]], ...] = (batches, resolutions, lengths, precisions)


def ways(budget: Budget) -> tuple[str, ...]:
    """Settings in words with which a budget would fit: each alone, or one that changes several; none if nothing helps.

    Of each setting it is the one nearest to the budget.
    """
    nearest = (next((words for words, other in options(budget) if other.fits), None) for options in SETTINGS)
    alone = tuple(words for words in nearest if words is not None)
    if alone:
        return alone
    together = []
    for options in SETTINGS:
        tried = list(options(budget))
        if not tried:
            continue
        words, budget = next((option for option in tried if option[1].fits), tried[-1])
        together.append(words)
        if budget.fits:
            return (" and ".join(together),)
    return ()


def _either(words: tuple[str, ...]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
