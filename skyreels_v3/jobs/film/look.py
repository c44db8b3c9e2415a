"""With what a take is sampled: what its line says, and for the rest what all shots of the film have."""

from dataclasses import dataclass

from ...recipes import RECIPES
from .grammar.line import FilmLine


@dataclass(frozen=True)
class Look:
    """How all shots of a film are sampled, where their lines say nothing else; and the size of the film in pixels.

    steps, shift: None for those that each model was distilled for.
    """

    width: int
    height: int
    seed: int
    steps: int | None
    shift: float | None
    guidance: float
    negative: str
    colour_anchor: float
    codec: str


@dataclass(frozen=True)
class TakeSettings:
    """What one take is sampled with."""

    seed: int
    steps: int
    shift: float
    guidance: float
    negative: str | None  # None where it is not used


def take_settings(look: Look, line: FilmLine, number: int) -> TakeSettings:
    """Of a take (from 1) of a line that a model makes. Each take has the seed after that of the one before."""
    if line.job is None:
        raise ValueError("a clip is not sampled")
    recipe, options = RECIPES[line.job], line.options
    guidance = look.guidance if options.guidance is None else options.guidance
    seed = (look.seed if options.seed is None else options.seed) + number - 1
    negative = (look.negative.strip() or recipe.negative) if guidance > 1 else None
    steps = options.steps or look.steps or recipe.steps
    return TakeSettings(seed % 2**64, steps, look.shift or recipe.shift, guidance, negative)
