"""What is measured of the nano models, and how good it has to be.

The renderer's truth, blurred and with noise, passes all of it, and clips exchanged between twins (trials.py) fail each.
"""

from dataclasses import dataclass

CONSISTENCY, FOLLOWING, QUALITY = "reference consistency", "prompt following", "visual quality"
CONTINUITY, CUTS, SYNC, FILMS = "going on", "cuts", "speech", "films of eight shots"


@dataclass(frozen=True)
class Measure:
    """name: of scores.score.  kind: what it belongs to.  what: in words, with the unit.

    bound: the least that passes, or the most where `at_most`.  digits: shown after the point.
    held: whether the shipped models pass it, and have to. What they do not do yet is measured and reported beside.
    quick: whether --quick has time for it.
    """

    name: str
    kind: str
    what: str
    bound: float
    at_most: bool = False
    digits: int = 2
    held: bool = True
    quick: bool = True

    def passes(self, value: float) -> bool:
        """Not a number never passes."""
        return value <= self.bound if self.at_most else value >= self.bound

    @property
    def rule(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.bound:g}"


MEASURES = (
    Measure("reference.character", CONSISTENCY, "share of frames whose best fit is the character of the picture", 0.6),
    Measure("reference.object", CONSISTENCY, "share of frames whose best fit is the object of the picture", 0.4),
    Measure("reference.held", CONSISTENCY, "the same of an object in a hand", 0.6, held=False),
    Measure("reference.place", CONSISTENCY, "share of frames in the place of the prompt and the picture", 0.75),
    Measure("reference.likeness", CONSISTENCY, "how badly the head fits the character, 0 is perfect", 0.15, True, 3),
    Measure("prompt.time", FOLLOWING, "share of frames at the right time of day", 0.75),
    Measure("prompt.action", FOLLOWING, "way walked as said, 1 is the truth's", 0.5, held=False),
    Measure("prompt.camera", FOLLOWING, "pan as said, 1 is the truth's", 0.5, held=False),
    Measure("prompt.shot", FOLLOWING, "error of the framing, in doublings", 0.3, True),
    Measure("extension.psnr", QUALITY, "PSNR of new frames against the truth, dB", 18.0, digits=1),
    Measure("avatar.psnr", QUALITY, "PSNR of the avatar against the truth, dB", 18.0, digits=1),
    Measure("extension.seam", CONTINUITY, "difference over a seam beyond the truth's, 0 to 1", 0.04, True, 3),
    Measure("extension.motion", CONTINUITY, "way walked on, 1 is the truth's", 0.5),
    Measure("long.jump", CONTINUITY, "farthest jump of the head over a seam, in picture heights", 0.06, True, 3),
    Measure("long.character", CONTINUITY, "share of rolls that end with the right character", 0.9),
    Measure(
        "long.drift",
        CONTINUITY,
        "how far the colours of the end are from those of the source",
        0.04,
        True,
        3,
    ),
    Measure("cut.subject", CUTS, "share of frames with the right character or object", 0.4),
    Measure("cut.place", CUTS, "share of frames in the same place", 0.75),
    Measure("cut.framing", CUTS, "error of the new framing, in doublings", 0.6, True),
    Measure("avatar.character", CONSISTENCY, "share of frames whose best fit is the person of the portrait", 0.75),
    Measure("lips.correlation", SYNC, "correlation of mouth and speech, within one frame", 0.6),
    Measure("lips.lag", SYNC, "frames by which the mouth is early or late", 1.0, True, 1),
    Measure("lips.silence", SYNC, "how far the mouth opens in silence, 0 to 1", 0.3, True),
    Measure("lips.two", SYNC, "correlation with one's own speech less that with the other's", 0.4),
    Measure("film.first", FILMS, "share of frames of the first scene with the right character", 0.6, quick=False),
    Measure("film.last", FILMS, "share of frames of the last scene with the right character", 0.6, quick=False),
    Measure(
        "film.place",
        FILMS,
        "share of frames of the last scene where `last` shows it to be",
        0.6,
        held=False,
        quick=False,
    ),
    Measure("film.seam", FILMS, "largest difference over a seam, 0 to 1", 0.06, True, 3, quick=False),
    Measure("film.colours", FILMS, "largest step of the colours over a seam", 0.04, True, 3, quick=False),
)
