"""Extending a clip: which rolls are made for a script, how long each is, and what of the past it is shown.

A roll is one sampling. A `continue` roll has up to 25 frames of the past before it, a `cut` 9 to 33 after
it (`model.sequence.extension_segments`, `model.sequence.shot_segments`).
Source: single_shot_extension_pipeline.py and shot_switching_extension_pipeline.py of the official code.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from ...errors import InputError
from ...images.sizes import video_size
from ...recipes import FRAMES_PER_LATENT, LATENT_CHANNELS, PIXELS_PER_LATENT, RECIPES, Job, latent_frames, tokens
from ..table import seconds, table
from .script import CONTINUE, CUT, CUT_SECONDS, DEFAULT_SECONDS, Line, has_cut_tag

FPS = RECIPES[Job.EXTENSION].fps
PREFIX_FRAMES = 25  # of the past before a continue
CUT_PREFIX_FRAMES = {2: 9, 3: 17, 4: 25, 5: 33}  # of the past after a cut, by its seconds
LONGEST_PREFIX = max(CUT_PREFIX_FRAMES.values())
# After a hard cut near the source's end fewer frames than this are left alone: the shortest prefix that the models
# were trained on. The prefix then reaches over the cut.
SHORTEST_SHOT = 9
ROLL_LATENTS = 30  # 5 s: the longest roll
ROLL_FRAMES = ROLL_LATENTS * FRAMES_PER_LATENT
SHORT_LATENTS = 12  # 2 s: a last roll below it is evened out with the one before
OFFICIAL_MULTIPLE = 8  # latent frames of prefix and roll together, left over from runs on 8 GPUs
PROMPT_SHOWN = 60  # characters of a prompt in a printed plan


class RollLength(NamedTuple):
    """Frames of one roll.

    prefix_frames: 4n + 1 frames of the past.  latent_frames: new ones, that start as noise.
    decoded_frames: what the VAE makes; of a continue, prefix and roll together.  new_frames: those of them that are
    kept: of a continue, the ones right after the prefix; of a cut, the first ones.
    """

    prefix_frames: int
    latent_frames: int
    decoded_frames: int
    new_frames: int


@dataclass(frozen=True)
class RollPlan:
    """One sampling.

    line: index into the script's lines.  number: of that line in the text, from 1.  kind: "continue" or "cut".
    part: of `parts` rolls of its line, from 1.  The frames are those of RollLength.
    """

    line: int
    number: int
    kind: str
    prompt: str
    part: int
    parts: int
    prefix_frames: int
    latent_frames: int
    decoded_frames: int
    new_frames: int

    @property
    def job(self) -> Job:
        """Which model makes it."""
        return Job.SHOT if self.kind == CUT else Job.EXTENSION

    @property
    def prefix_latents(self) -> int:
        return latent_frames(self.prefix_frames)

    @property
    def new_start(self) -> int:
        """Where in the decoded frames the new ones begin."""
        return 0 if self.kind == CUT else self.prefix_frames


@dataclass(frozen=True)
class PlanSource:
    """What a plan needs to know about the source.

    width, height: pixels as shown (rotation applied).  frames: at 24 a second.
    shot_frames: of them, those after the last hard cut; None where there is no cut.
    """

    width: int
    height: int
    frames: int
    shot_frames: int | None = None


@dataclass(frozen=True)
class ExtensionPlan:
    """What a run will make of a source and a script. width, height: pixels.  steps_per_roll: of the solver.

    past: frames of the source's end that rolls may be shown.
    official: frame counts as the official code has them, longer than asked for.
    notes: what an artist should know, one sentence each.
    """

    width: int
    height: int
    rolls: tuple[RollPlan, ...]
    past: int
    official: bool = False
    steps_per_roll: int = RECIPES[Job.EXTENSION].steps
    notes: tuple[str, ...] = ()

    @property
    def new_frames(self) -> int:
        return sum(roll.new_frames for roll in self.rolls)

    @property
    def seconds(self) -> Fraction:
        return Fraction(self.new_frames, FPS)

    @property
    def steps(self) -> int:
        """Solver steps of the whole run."""
        return self.steps_per_roll * len(self.rolls)

    @property
    def tokens(self) -> int:
        """Transformer tokens of the largest roll, prefix included: what its memory follows."""
        return max(map(self.tokens_of, self.rolls))

    def tokens_of(self, roll: RollPlan) -> int:
        """Transformer tokens of a roll, prefix included."""
        return tokens(roll.prefix_latents + roll.latent_frames, self.height, self.width)

    def latent_shape(self, roll: RollPlan) -> tuple[int, int, int, int, int]:
        """Of a roll's new latent, [1, 16, T, h, w]."""
        return 1, LATENT_CHANNELS, roll.latent_frames, self.height // PIXELS_PER_LATENT, self.width // PIXELS_PER_LATENT

    def describe(self) -> str:
        """The plan as a table to read before it starts; past: the frames of what was before that a roll is shown."""
        count = len(self.rolls)
        head = (
            f"{self.width} x {self.height} pixels, {self.new_frames} new frames "
            f"({seconds(self.new_frames, FPS)} s at {FPS} a second), "
            f"{count} roll{'s' if count > 1 else ''} of {self.steps_per_roll} steps"
            f"{', lengths as in the official code' if self.official else ''}"
        )
        rows: list[tuple[Any, ...]] = [("roll", "line", "shot", "part", "frames", "seconds", "past", "prompt")]
        for index, roll in enumerate(self.rolls, start=1):
            part = f"{roll.part} of {roll.parts}"
            numbers = (roll.new_frames, seconds(roll.new_frames, FPS), roll.prefix_frames)
            rows.append((index, roll.number, roll.kind, part, *numbers, _shortened(roll.prompt)))
        return "\n".join([head, *table(rows, text=True), *self.notes])


def prefix_of(available: int, wanted: int) -> int:
    """The most frames, 4n + 1 and at most `wanted`, that can be shown of `available` (at least 1)."""
    return (min(available, wanted) - 1) // FRAMES_PER_LATENT * FRAMES_PER_LATENT + 1


def continue_rolls(
    seconds: Fraction | float, official: bool = False, available: int = PREFIX_FRAMES
) -> tuple[RollLength, ...]:
    """The rolls of a continue. available: frames of the past before the first of them.

    By default exactly 24 frames a second in rolls of 5 s. A last roll below 2 s would know little of what it is to
    show; it shares its time evenly with the one before. All rolls but the last are whole latent frames.
    official: rolls of 5 s and a rest, each rounded so that prefix and roll are a multiple of 8 latent frames, where
    what one roll was given too much a later one is given less; nothing is cut off.
    """
    seconds = Fraction(seconds)
    exact = max(1, _rounded(seconds * FPS))
    frames = None if official else exact
    rolls = []
    for count in _official_latents(seconds, available) if official else _even_latents(exact):
        prefix = prefix_of(available, PREFIX_FRAMES)
        new = FRAMES_PER_LATENT * count
        if frames is not None:
            new = min(new, frames)
            frames -= new
        rolls.append(RollLength(prefix, count, FRAMES_PER_LATENT * count + prefix, new))
        available += new
    return tuple(rolls)


def cut_roll(seconds: Fraction | float, official: bool = False, available: int = LONGEST_PREFIX) -> RollLength:
    """The one roll of a cut of 2 to 5 s. available: frames of the past.

    By default exactly 24 frames a second: the one frame more that the VAE makes is left out. official: it is kept.
    Times between whole seconds have the prefix of the next one.
    """
    seconds = Fraction(seconds)
    prefix = prefix_of(available, CUT_PREFIX_FRAMES[math.ceil(seconds)])
    frames = _rounded(seconds * FPS)
    count = latent_frames(frames + 3 + int(official))
    decoded = FRAMES_PER_LATENT * (count - 1) + 1
    return RollLength(prefix, count, decoded, decoded if official else frames)


def plan_extension(
    lines: Sequence[Line],
    source: PlanSource,
    resolution: str | None = None,
    width: int | None = None,
    height: int | None = None,
    official: bool = False,
    has_model: bool = True,
    has_shot_model: bool = True,
    steps: int = RECIPES[Job.EXTENSION].steps,
) -> ExtensionPlan:
    """The plan for a script and a source; pure.

    Size: `video_size` of the source's shape.  official: frame counts as in the official code.
    has_model, has_shot_model: which of the two models are at hand.
    Raises InputError for a source without frames, a script without lines, a line whose model is not there, and sizes
    that make no video.
    """
    if source.frames < 1:
        raise InputError("The source has no frames, but at least one is needed: connect a video or an image.")
    if not lines:
        raise InputError("The script has no lines, but it needs one for each shot.")
    for line in lines:
        _check_line(line, has_model, has_shot_model)
    shape = source.width, source.height
    width, height, notes = video_size(shape, resolution, width, height, Job.EXTENSION)
    available, source_notes = _past(source)
    past = min(available, LONGEST_PREFIX)
    notes += source_notes
    rolls = []
    for index, line in enumerate(lines):
        if line.kind == CUT:
            lengths = (cut_roll(line.seconds, official, available),)
            wanted = cut_roll(line.seconds, official).prefix_frames
        else:
            lengths = continue_rolls(line.seconds, official, available)
            wanted = PREFIX_FRAMES
        rolls += [
            RollPlan(index, line.number, line.kind, line.prompt, part, len(lengths), *length)
            for part, length in enumerate(lengths, start=1)
        ]
        if lengths[0].prefix_frames < wanted:
            shown = lengths[0].prefix_frames
            notes += (
                f"Line {line.number} is shown {shown} frame{'s' if shown > 1 else ''} of the past instead of {wanted}, "
                f"because there are only {available}.",
            )
        notes += _tag_notes(line)
        made = sum(length.new_frames for length in lengths)
        if official and made != _rounded(line.seconds * FPS):
            notes += (f"Line {line.number} is {seconds(made, FPS)} s long, as in the official code.",)
        available = made + (0 if line.kind == CUT else available)
    return ExtensionPlan(width, height, tuple(rolls), past, official, steps, notes)


def _even_latents(frames: int) -> list[int]:
    """New latent frames of each roll, for this many frames in all."""
    total = math.ceil(frames / FRAMES_PER_LATENT)
    full, rest = divmod(total, ROLL_LATENTS)
    counts = [ROLL_LATENTS] * full + [rest] * (rest > 0)
    if full and 0 < rest < SHORT_LATENTS:
        both = ROLL_LATENTS + rest
        counts[-2:] = [both - both // 2, both // 2]
    return counts


def _official_latents(seconds: Fraction, available: int) -> list[int]:
    """New latent frames of each roll in the official code, which carries what was rounded from roll to roll."""
    per_second = FPS // FRAMES_PER_LATENT
    counts, ahead = [], 0
    while seconds > 0:
        count = math.ceil(per_second * min(seconds, DEFAULT_SECONDS))
        seconds -= DEFAULT_SECONDS
        rest = (count + latent_frames(prefix_of(available, PREFIX_FRAMES))) % OFFICIAL_MULTIPLE
        # The second condition is for prefixes that the official code has not: no roll may vanish.
        if rest > ahead or rest >= count:
            ahead += OFFICIAL_MULTIPLE - rest
            count += OFFICIAL_MULTIPLE - rest
        else:
            ahead -= rest
            count -= rest
        counts.append(count)
        available += FRAMES_PER_LATENT * count
    return counts


def _check_line(line: Line, has_model: bool, has_shot_model: bool) -> None:
    if line.kind == CUT:
        shortest, longest = CUT_SECONDS
        if not shortest <= line.seconds <= longest:
            raise InputError(
                f"Line {line.number} is a cut of {float(line.seconds):g} s, but a cut takes {shortest} to {longest} s."
            )
        if not has_shot_model:
            raise InputError(
                f"Line {line.number} is a cut, but nothing is connected to shot_model: connect the shot switching "
                "checkpoint, from SkyReels-V3 Load Model, or write `continue`."
            )
    elif line.seconds <= 0:
        raise InputError(f"Line {line.number} is {float(line.seconds):g} s long, but it must be above 0.")
    elif not has_model:
        raise InputError(
            f"Line {line.number} continues a shot, but nothing is connected to model: connect the single-shot "
            "extension checkpoint, from SkyReels-V3 Load Model, or write `cut`."
        )


def _past(source: PlanSource) -> tuple[int, tuple[str, ...]]:
    """Frames of the source that the first roll may be shown, and what is to be said about them."""
    shot = source.shot_frames
    if shot is None or not 0 < shot < min(source.frames, LONGEST_PREFIX):
        return source.frames, ()
    said = f"The source has a hard cut {shot} frame{'s' if shot > 1 else ''} before its end"
    if shot < SHORTEST_SHOT:
        return source.frames, (f"{said}; what comes before it is shown to the model too.",)
    return shot, (f"{said}; only what comes after it is shown to the model.",)


def _tag_notes(line: Line) -> tuple[str, ...]:
    if line.kind == CUT and not has_cut_tag(line.prompt):
        return (f"Line {line.number} is a cut without a tag such as [ZOOM_IN_CUT], which the model was trained with.",)
    if line.kind == CONTINUE and has_cut_tag(line.prompt):
        return (f"Line {line.number} continues the shot, but its prompt begins with the tag of a cut.",)
    return ()


def _rounded(number: Fraction) -> int:
    """To the nearest whole number, halves up: Python's round() would make 60.5 and 61.5 two apart."""
    return math.floor(number + Fraction(1, 2))


def _shortened(prompt: str) -> str:
    prompt = " ".join(prompt.split())
    return prompt if len(prompt) <= PROMPT_SHOWN else prompt[: PROMPT_SHOWN - 3] + "..."
