"""A line of a film's script, and the words that it is written with. Needs no torch."""

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction

from ....recipes import Job
from ...extension.script import CONTINUE, CUT

SCENE, SPEAK, CLIP, DUB = "scene", "speak", "clip", "dub"
SPOKEN, FOOTAGE = (SPEAK, DUB), (CLIP, DUB)  # kinds of lines with a recording, and with a file of footage
LAST = "last"  # as a reference: the last frame so far
BEST = "best"  # as a take: the one that measures best
JOBS = {
    **{SCENE: Job.REFERENCE, CONTINUE: Job.EXTENSION, CUT: Job.SHOT},
    **dict.fromkeys(SPOKEN, Job.AVATAR),
}  # a clip needs no model
EXAMPLES = {
    SCENE: "`scene 5s [anna, cafe]: Anna looks round.`",
    SPEAK: "`speak [anna: hello.wav]: Anna talks.`",
    CLIP: "`clip harbour.mp4 3s-8s`",
    DUB: "`dub harbour.mp4 3s-8s [anna: hello.wav]`",
}
NAME_SIGNS = ",:;=[]{}"  # what the grammar itself uses


@dataclass(frozen=True)
class Options:
    """What stands in braces. None: as the node says.

    takes: how many are made, None for the chosen one alone.  take: from 1, or BEST.  lock: keeps what is made though
    what is before it changes.  name: by which later scenes show the shot's last frame.  together: two voices from the
    start on instead of in turns.
    box, strength, start: of a dub, as the inputs of Dub Video; the box as it is written, start in seconds.
    """

    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    takes: int | None = None
    take: int | str | None = None
    lock: bool = False
    name: str | None = None
    together: bool = False
    box: str | None = None
    strength: float | None = None
    start: Fraction | None = None

    @property
    def numbers(self) -> tuple[int, ...]:
        """The takes that are made, from 1."""
        if self.takes is not None:
            return tuple(range(1, self.takes + 1))
        return (self.take if isinstance(self.take, int) else 1,)

    @property
    def shown(self) -> int | None:
        """The take that the film shows; None for the one that measures best."""
        if self.take == BEST:
            return None
        return self.take if isinstance(self.take, int) else self.numbers[0]


@dataclass(frozen=True)
class Voice:
    """Who speaks and what. Without a file it is the voice of the cast; without a name nobody is meant in particular."""

    name: str | None
    file: str | None


@dataclass(frozen=True)
class FilmLine:
    """One shot of a film.

    number: of its line in the text, from 1; 0 for the footage that is connected.  seconds: of a scene, continue or
    cut; None where a recording or footage decides.  references: names of a scene.  voices: of a speak, from the left,
    or the one of a dub.
    file, start, stop: of a clip or a dub; times in seconds, stop None for its end.
    """

    number: int
    kind: str
    seconds: Fraction | None = None
    prompt: str = ""
    references: tuple[str, ...] = ()
    voices: tuple[Voice, ...] = ()
    file: str = ""
    start: Fraction = Fraction(0)
    stop: Fraction | None = None
    options: Options = Options()

    @property
    def job(self) -> Job | None:
        """Which model makes it."""
        return JOBS.get(self.kind)


def same_name(name: str) -> str:
    """What two names that mean the same come to: capitals, widths and spaces do not count."""
    return re.sub(r"\s+", " ", unicodedata.normalize("NFKC", name)).strip().casefold()
