"""Numbers of generated clips: what was asked of them against what they show.

A clip alone says what it shows, whatever was asked; so a control costs no second look.

Something always fits best, in noise too, and what it is there is a matter of luck, other on every processor. So only
what lasts counts as seen: the next frame has to show it in nearly the same place.
"""

from collections.abc import Callable, Iterable
from functools import cached_property

import numpy as np

from ...skyreels_v3.jobs.extension.plan import FPS
from ...skyreels_v3.measures.lag import sync
from ..world.acting import actor_x
from ..world.cameras import view_at
from .films import FilmTrial
from .lips import mouths, track
from .motion import STEP, colour_drift, path_of, path_through
from .seeing import objects
from .surroundings import place_of
from .templates import Found, find, shrunk
from .trials import ROLL, AvatarTrial, ExtensionTrial, ReferenceTrial, ShotTrial, Trial

LOOKS = 5  # moments of a clip that are looked at
ABSENT = 0.14  # a head that fits worse than this is none: empty places have such errors
UNSURE = 0.18  # how large a head is can still be told
LOST = 0.3  # whoever fits worse cannot be followed either: one who walks, is far away or passed by a camera is blurred
COARSE = (24, 16)  # cells of a frame, where single pixels do not count
NOWHERE = 1.0  # in place of a distance or an error where nobody is to be found
NEAR = 6  # frames on each side of a seam
LAGS = 5  # frames
WORST = ("long.jump", "long.drift", "film.seam", "film.colours")
FOLLOWS = 0.5  # a mouth that correlates less with speech has no lag: it counts as the longest one


class Clip:
    """frames: uint8 [F, H, W, 3]; and what is seen at LOOKS moments, looked for once."""

    def __init__(self, frames: np.ndarray):
        self.frames = frames
        self._tracks: dict = {}
        self._lasting: dict = {}

    @property
    def moments(self) -> np.ndarray:
        """Which frames are looked at."""
        return np.linspace(0, len(self.frames) - 1, LOOKS + 2).round().astype(int)[1:-1]

    @property
    def after(self) -> np.ndarray:
        """The frames after those."""
        return np.minimum(self.moments + 1, len(self.frames) - 1)

    @property
    def ratio(self) -> float:
        return self.frames.shape[2] / self.frames.shape[1]

    @cached_property
    def heads(self) -> list[list[Found]]:
        """Every character, best fit first."""
        return [find(self.frames[i], "head") for i in self.moments]

    @cached_property
    def things(self) -> list[list[Found]]:
        """Every object beside the character that fits best, best fit first."""
        return [objects(self.frames[i], heads[0]) for i, heads in zip(self.moments, self.heads)]

    @cached_property
    def bare_things(self) -> list[list[Found]]:
        """Every object anywhere, best fit first."""
        return [objects(self.frames[i]) for i in self.moments]

    @cached_property
    def places(self) -> list[tuple[tuple[str, str, float], tuple[str, str, float]]]:
        """Of each moment and of the frame after it."""
        return [(place_of(self.frames[i]), place_of(self.frames[j])) for i, j in zip(self.moments, self.after)]

    def lasting(self, what: str) -> list[Found | None]:
        """Of `heads`, `things` or `bare_things` the best fits, None for those that are elsewhere in the next frame."""
        if what not in self._lasting:
            found = [fits[0] if fits else None for fits in getattr(self, what)]
            self._lasting[what] = [
                one if one and self._lasts(which, one, what) else None for which, one in enumerate(found)
            ]
        return self._lasting[what]

    def _lasts(self, which: int, found: Found, what: str) -> bool:
        frame, names = self.frames[self.after[which]], (found.name,)
        if what == "heads":
            again = find(frame, "head", names=names)
        else:
            again = objects(frame, self.heads[which][0] if what == "things" else None, names)
        return bool(again) and np.hypot((again[0].x - found.x) * self.ratio, again[0].y - found.y) <= STEP

    def mouth(self, name: str, near: tuple[float, float] | None = None) -> np.ndarray | None:
        """Openness [F] of a character's mouth, None where there is no such face."""
        if (name, near) not in self._tracks:
            heads = track(self.frames, name, near)
            path = path_through(heads, self.ratio)
            there = path.steady and np.median(path.error) <= ABSENT
            self._tracks[name, near] = mouths(self.frames, heads) if there else None
        return self._tracks[name, near]


def singles(trial: Trial, clip: Clip) -> dict[str, float]:
    """Every measure of what was asked for, of one clip. clip: the new frames."""
    return {
        name: float(measure(trial, clip))
        for name, (kind, asked, measure) in _MEASURES.items()
        if isinstance(trial, kind) and asked in trial.asked
    }


def summary(every: Iterable[dict[str, float]]) -> dict[str, float]:
    """Of many clips' `singles`: the mean of each measure, the highest of those in WORST. NaN stays NaN."""
    gathered: dict[str, list[float]] = {}
    for one in every:
        for name, value in one.items():
            gathered.setdefault(name, []).append(value)
    return {
        name: float((np.max if name in WORST else np.mean)(gathered[name])) for name in _MEASURES if name in gathered
    }


def _character(trial: Trial, clip: Clip) -> float:
    """Whether it is somebody else; how well it fits says `_likeness`."""
    name = trial.scene.actors[0].character
    return _share(head is not None and head.name == name for head in clip.lasting("heads"))


def _likeness(trial: Trial, clip: Clip) -> float:
    name = trial.scene.actors[0].character
    return float(np.median([next(head.error for head in heads if head.name == name) for heads in clip.heads]))


def _held(trial: Trial, clip: Clip) -> float:
    return _share(thing is not None and thing.name == trial.scene.objects[0] for thing in clip.lasting("things"))


def _place(trial: Trial, clip: Clip) -> float:
    return _share(all(place == trial.scene.place for place, *_ in both) for both in clip.places)


def _time(trial: Trial, clip: Clip) -> float:
    return _share(all(time == trial.scene.time for _, time, _ in both) for both in clip.places)


def _moved(trial: ReferenceTrial | ExtensionTrial, clip: Clip) -> float:
    """How far someone moves in the picture, by walking or by the camera, as a share of the truth; 0 of nobody."""
    times = getattr(trial, "begin", 0.0) + np.arange(len(clip.frames)) / FPS
    views = [view_at(trial.scene, t) for t in times]
    true = [(actor_x(trial.scene, 0, t) - view.x) * view.zoom for t, view in zip(times, views)]
    way = float(np.polyfit(times, true, 1)[0])
    path = path_of(clip.frames, trial.scene.actors[0].character, FPS)
    return path.velocity[0] / way if path.steady and np.median(path.error) < LOST else 0.0


def _framing(trial: Trial, clip: Clip) -> float:
    true = [view_at(trial.scene, i / FPS).zoom for i in clip.moments]
    sure = [head is not None and head.error <= UNSURE for head in clip.lasting("heads")]
    if _share(sure) < 0.5:
        return NOWHERE
    return float(np.median([abs(np.log2(heads[0].zoom / zoom)) for heads, zoom in zip(clip.heads, true)]))


def _subject(trial: Trial, clip: Clip) -> float:
    """The character or object that a shot is of."""
    subject = trial.scene.subject or trial.scene.actors[0].character
    if subject == trial.scene.thing:
        return _share(thing is not None and thing.name == subject for thing in clip.lasting("bare_things"))
    heads = clip.lasting("heads")
    return _share(head is not None and head.name == subject and head.error < ABSENT for head in heads)


def _psnr(trial: Trial, clip: Clip) -> float:
    """dB, of the first second alone: after it a clip may go its own way."""
    truth = trial.truth(ROLL)
    return psnr(clip.frames[: len(truth)], truth[: len(clip.frames)])


def psnr(made: np.ndarray, truth: np.ndarray) -> float:
    """dB of frames uint8."""
    error = ((made.astype(np.float32) - truth.astype(np.float32)) ** 2).mean()
    return float(10 * np.log10(255**2 / max(float(error), 1e-3)))


def _seam(trial: ExtensionTrial, clip: Clip) -> float:
    """Mean absolute difference of the last given frame and the first new one, less that of the truth; noise apart."""
    last, made, true = (shrunk(frame, *COARSE) for frame in (trial.prefix[-1], clip.frames[0], trial.truth(1)[0]))
    return float(np.abs(made - last).mean() - np.abs(true - last).mean())


def _jump(trial: ExtensionTrial, clip: Clip) -> float:
    """The farthest that a head moves from one frame to the next over any seam."""
    frames, seams = np.concatenate([trial.prefix, clip.frames]), range(len(trial.prefix), trial.rolls * ROLL, ROLL)
    near = [frames[max(0, seam - NEAR) : seam + NEAR] for seam in seams if seam < len(frames)]
    paths = [path_of(around, trial.scene.actors[0].character, FPS) for around in near]
    if np.median(paths[-1].error[NEAR:]) > ABSENT:
        return NOWHERE
    return max(float(path.jumps.max()) for path in paths)


def _stays(trial: ExtensionTrial, clip: Clip) -> float:
    """Share of rolls at whose end the right character is seen; rolls that are missing count as wrong."""
    name, right = trial.scene.actors[0].character, 0
    for end in range(ROLL, min(len(clip.frames), trial.rolls * ROLL) + 1, ROLL):
        head = find(clip.frames[end - 1], "head")[0]
        right += head.name == name and head.error < ABSENT
    return right / trial.rolls


def _drift(trial: ExtensionTrial, clip: Clip) -> float:
    return colour_drift(np.concatenate([trial.prefix, clip.frames]), len(trial.prefix) // 2)


def _follows(trial: AvatarTrial, clip: Clip) -> tuple[float, int]:
    """Correlation of mouth and speech at no more than one frame of lag, and the lag at which it is best."""
    mouth = clip.mouth(trial.scene.actors[0].character)
    if mouth is None:
        return 0.0, LAGS
    heard = trial.mouths[0]
    count = min(len(mouth), len(heard))  # of twins with speech of other lengths
    best, lag = sync(mouth[:count], heard[:count], LAGS)
    return sync(mouth[:count], heard[:count], 1)[0], abs(lag) if best >= FOLLOWS else LAGS


def _open(trial: AvatarTrial, clip: Clip) -> float:
    """How far the mouth is open in all frames but the widest twentieth; all the way where there is no such face."""
    mouth = clip.mouth(trial.scene.actors[0].character)
    return NOWHERE if mouth is None else float(np.quantile(mouth, 0.95))


def _own_speech(trial: AvatarTrial, clip: Clip) -> float:
    """Of two people, how much better each mouth goes with its own speech than with the other's."""
    better = []
    for index, actor in enumerate(trial.scene.actors):
        mouth = clip.mouth(actor.character, ((0.0, 0.5), (0.5, 1.0))[index])
        if mouth is None:
            return 0.0
        own, other = (sync(mouth, trial.mouths[who], 1)[0] for who in (index, 1 - index))
        better.append(own - other)
    return float(np.mean(better))


def _first(trial: FilmTrial, clip: Clip) -> float:
    return _character(trial, Clip(clip.frames[: trial.ends[0]]))


def _last(trial: FilmTrial, clip: Clip) -> float:
    return _character(trial, Clip(clip.frames[trial.ends[-2] :]))


def _stayed(trial: FilmTrial, clip: Clip) -> float:
    """Of the last scene the share of frames in the place where it was, which its prompt does not name."""
    frames = clip.frames[trial.ends[-2] :]
    return _share(place_of(frame)[0] == trial.shots[-1].scene.place for frame in frames[Clip(frames).moments])


def _roughest(trial: FilmTrial, clip: Clip) -> float:
    """The largest mean difference of two frames over a seam."""
    frames = np.stack([[shrunk(clip.frames[at], *COARSE) for at in (seam - 1, seam)] for seam in trial.seams])
    return float(np.abs(frames[:, 0] - frames[:, 1]).mean(axis=(1, 2, 3)).max()) if _anyone(trial, clip) else NOWHERE


def _stepped(trial: FilmTrial, clip: Clip) -> float:
    """The largest step of the colours over a seam."""
    steps = [colour_drift(clip.frames[seam - NEAR : seam + NEAR], NEAR) for seam in trial.seams]
    return max(steps) if _anyone(trial, clip) else NOWHERE


def _anyone(trial: FilmTrial, clip: Clip) -> bool:
    """Whether somebody is seen at the seams: black frames have none that shows."""
    return float(np.median([find(clip.frames[seam], "head")[0].error for seam in trial.seams])) <= ABSENT


def _share(right: Iterable[bool]) -> float:
    return float(np.mean(list(right)))


# Name -> of which job, asked for what, of one clip.
_MEASURES: dict[str, tuple[type[Trial], str, Callable[[Trial, Clip], float]]] = {
    "reference.character": (ReferenceTrial, "character", _character),
    "reference.object": (ReferenceTrial, "object", _subject),
    "reference.held": (ReferenceTrial, "held", _held),
    "reference.place": (ReferenceTrial, "place", _place),
    "reference.likeness": (ReferenceTrial, "character", _likeness),
    "prompt.time": (ReferenceTrial, "time", _time),
    "prompt.action": (ReferenceTrial, "action", _moved),
    "prompt.camera": (ReferenceTrial, "camera", _moved),
    "prompt.shot": (ReferenceTrial, "shot", _framing),
    "extension.psnr": (ExtensionTrial, "picture", _psnr),
    "extension.seam": (ExtensionTrial, "seam", _seam),
    "extension.motion": (ExtensionTrial, "motion", _moved),
    "long.jump": (ExtensionTrial, "long", _jump),
    "long.character": (ExtensionTrial, "long", _stays),
    "long.drift": (ExtensionTrial, "long", _drift),
    "cut.subject": (ShotTrial, "subject", _subject),
    "cut.place": (ShotTrial, "place", _place),
    "cut.framing": (ShotTrial, "framing", _framing),
    "avatar.character": (AvatarTrial, "character", _character),
    "avatar.psnr": (AvatarTrial, "picture", _psnr),
    "lips.correlation": (AvatarTrial, "speech", lambda trial, clip: _follows(trial, clip)[0]),
    "lips.lag": (AvatarTrial, "speech", lambda trial, clip: _follows(trial, clip)[1]),
    "lips.silence": (AvatarTrial, "silence", _open),
    "lips.two": (AvatarTrial, "two", _own_speech),
    "film.first": (FilmTrial, "film", _first),
    "film.last": (FilmTrial, "film", _last),
    "film.place": (FilmTrial, "film", _stayed),
    "film.seam": (FilmTrial, "film", _roughest),
    "film.colours": (FilmTrial, "film", _stepped),
}
