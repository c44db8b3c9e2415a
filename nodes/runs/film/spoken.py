"""The shots of a film in which somebody speaks: a talking avatar, and footage that is dubbed."""

import math
from collections import deque
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from ....skyreels_v3.images.resize import fit_frame
from ....skyreels_v3.jobs.avatar.passes import Settings, Start
from ....skyreels_v3.jobs.avatar.plan import DEFAULT_TIMING, Windows, plan_windows
from ....skyreels_v3.jobs.dub.prepare import STRENGTH, Asked
from ....skyreels_v3.jobs.extension.plan import FPS, LONGEST_PREFIX
from ....skyreels_v3.jobs.extension.roll import Tail
from ....skyreels_v3.jobs.film.grammar.line import FilmLine
from ....skyreels_v3.jobs.film.look import Look, TakeSettings
from ....skyreels_v3.model.speaker_map import PositionMap
from ....skyreels_v3.recipes import Job
from ....skyreels_v3.resume.folder import RunFolder
from ....skyreels_v3.speech.encoder import check_features
from ....skyreels_v3.speech.masks import shared_places, speaker_masks
from ....skyreels_v3.speech.recording import FPS as SPOKEN_FPS
from ....skyreels_v3.speech.recording import MAX_SECONDS
from ....skyreels_v3.speech.speakers import mixed
from ....skyreels_v3.video.sources.source import FramesSource, Source, last_frames
from ...encoders.speech import Speech, encode_speech
from ...inputs.cast import Table
from ..avatar import AvatarModels, AvatarRequest, AvatarRun, Sampling, Texts
from ..dub import DubRequest, DubRun, KnownDub, look_through
from .material import Material, behind_cut
from .shots import ShotRun, TakeRequest, Write, last_picture

CONNECTION = "a person is talking"  # as in Talking Avatar and Dub Video

Run = TypeVar("Run", AvatarRun, DubRun)


@dataclass(frozen=True)
class Spoken(Start):
    """And the last frames that were written, uint8 [n, H, W, 3], at the made rate: a window may be shorter."""

    recent: torch.Tensor

    def tensors(self) -> dict[str, torch.Tensor]:
        return {**super().tensors(), "recent": self.recent}


class VoicedRun(ShotRun[Spoken], Generic[Run]):
    """A shot that another node's run makes, window by window, at a rate of its own."""

    state_type = Spoken
    run: Run
    look: Look

    def fitted(self, frames: torch.Tensor) -> torch.Tensor:
        """What the run has made, uint8 [n, H, W, 3], at the film's size."""
        return frames

    def prepare(self, folder: RunFolder, done: int) -> Spoken:
        self.run.progress = self.progress
        start = self.run.prepare(folder, done)
        none = torch.zeros(0, self.look.height, self.look.width, 3, dtype=torch.uint8)
        return Spoken(start.motion, start.generator, none)

    def make(self, index: int, start: Spoken, folder: RunFolder, write: Write) -> Spoken:
        # All that LONGEST_PREFIX frames of the models that go on are picked from.
        recent = deque(start.recent, math.ceil(LONGEST_PREFIX * self.made_rate / FPS) + 1)

        def written(frames: torch.Tensor) -> None:
            frames = self.fitted(frames)
            write(frames)
            recent.extend(frame.clone() for frame in frames)

        made = self.run.make(index, start, folder, written)
        return Spoken(made.motion, made.generator, torch.stack([*recent]) if recent else start.recent)


class SpokenRun(VoicedRun[AvatarRun]):
    """A speak: a talking avatar whose portrait is another shot's last frame."""

    made_rate = SPOKEN_FPS

    def __init__(self, take: TakeRequest, before: Tail, speech: Speech, key: str, table: Table | None = None):
        """key: of the take; its key frames are kept under it.  table: where the people of a dialogue are."""
        self.look, settings = take.look, take.settings
        request = AvatarRequest(
            portrait=last_picture(before),
            speech=speech,
            texts=Texts(take.line.prompt, CONNECTION, settings.negative or ""),
            masks=[None, None] if table is None else table.masks,
            boxes=["", ""] if table is None else table.boxes,
            position_map=PositionMap.OWN_FRAME,
            size={"width": self.look.width, "height": self.look.height},
            timing=DEFAULT_TIMING,
            settings=Settings(settings.seed),
            sampling=_sampling(settings),
            codec=self.look.codec,
        )
        self.run = AvatarRun(take.node, _models(take), request)
        self.run.prompts = take.prompts
        self.run.key_frames = f"key-frames-{key}"
        self.windows = self.run.windows

    @property
    def passes(self) -> int:
        return len(self.run.plan.passes)

    def tail(self, state: Spoken) -> Tail:
        last = len(state.recent) - 1
        back = [round(last - number * self.made_rate / FPS) for number in reversed(range(LONGEST_PREFIX))]
        return Tail.of_source(state.recent[[index for index in back if index >= 0]])


class DubbedRun(VoicedRun[DubRun]):
    """A dub: what Dub Video makes of footage at its own size and rate, fitted to the film as a clip is."""

    def __init__(
        self, take: TakeRequest, source: Source, fit: str, asked: Asked, speech: Speech, key: str, known: KnownDub
    ):
        """key: of the take; the sheet of its heads is kept under it."""
        self.look, self.fit, settings = take.look, fit, take.settings
        request = DubRequest(
            source=source,
            speech=speech,
            asked=asked,
            prompt=take.line.prompt or CONNECTION,
            negative=settings.negative or "",
            strength=strength_of(take.line),
            under=0.0,
            seed=settings.seed,
            sampling=_sampling(settings),
            codec=self.look.codec,
        )
        self.run = DubRun(take.node, _models(take), request, known)
        self.run.prompts = take.prompts
        self.run.heads = f"heads-{key}"
        self.windows = self.run.windows
        self.made_rate = self.run.plan.clock.rate

    def fitted(self, frames: torch.Tensor) -> torch.Tensor:
        size = self.look.width, self.look.height
        return torch.from_numpy(np.stack([fit_frame(frame.numpy(), *size, self.fit) for frame in frames]))

    def tail(self, state: Spoken) -> Tail:
        recent = FramesSource(state.recent, self.made_rate)
        return Tail.of_source(behind_cut(last_frames(recent, LONGEST_PREFIX, FPS)))


def dub_of(line: FilmLine, source: Source, look: Look, size: dict[str, Any]) -> Asked:
    """What a dub line asks of Dub Video. size: the film's, as the artist gives it; the head is made at that."""
    options, info = line.options, source.info
    scale = max(look.width / info.width, look.height / info.height)
    start, box = float(options.start or 0), options.box or ""
    return Asked(start, box=box, size=size, timing=DEFAULT_TIMING, scale=scale)


def look_at(
    node_id: str | None, line: FilmLine, source: Source, frames: int, asked: Asked, settings: TakeSettings
) -> KnownDub:
    """A dub line's footage, looked through for so many frames of speech. Raises InputError as `look_through` does."""
    return look_through(node_id, source, frames, asked, _sampling(settings), strength_of(line))


def strength_of(line: FilmLine) -> float:
    return STRENGTH if line.options.strength is None else line.options.strength


def heard_in(material: Material, place: int, audio_encoder: Any) -> Speech:
    """What is said in the shot at `place`. Raises InputError for another encoder, and for recordings that are none."""
    if place in material.tables:
        return material.tables[place].speech
    recordings = list(material.recordings[place])
    features = encode_speech(audio_encoder, recordings, MAX_SECONDS)
    return Speech(features, *mixed(recordings), MAX_SECONDS, audio_encoder)


def check_table(table: Table, model: Any, size: tuple[int, int]) -> list[str]:
    """What is to be known of a dialogue in a film, one sentence each. size: the film's (width, height).

    Raises InputError for people without a place, and for features of another encoder.
    """
    features, names = table.speech.features, table.speech.names
    check_features(features.layers, features.width, model.model.params.audio)
    if table.speech.people == 1:
        return []
    masks = speaker_masks(table.masks, size, *size, table.boxes, names=names)
    shared = shared_places(list(masks[:-1]), names or ("person 1", "person 2"))
    return [f"{told}: who is who may go wrong." for told in shared]


def speech_windows(frames: int) -> Windows:
    """The windows of so many frames of speech."""
    return plan_windows(frames, DEFAULT_TIMING)


def _sampling(settings: TakeSettings) -> Sampling:
    return Sampling(settings.steps, settings.shift, settings.guidance, 1.0)


def _models(take: TakeRequest) -> AvatarModels:
    models = take.models
    return AvatarModels(models.by_job[Job.AVATAR], models.clip, models.vae, models.clip_vision)
