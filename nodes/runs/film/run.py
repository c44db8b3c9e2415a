"""One run of Film: what is missing of its shots is made, and all of them become one video.

The folder of a film holds its takes, each with its windows, and is never removed by itself: whatever a line was before
is found again. Only its last result counts as the film.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Any

import av
import torch

from ....skyreels_v3.digest import digest
from ....skyreels_v3.images.convert import picture_to_signed, tail_to_signed, to_rgb8, to_uint8
from ....skyreels_v3.jobs.avatar.condition import clip_pixels
from ....skyreels_v3.jobs.dub.prepare import RECIPE, Asked
from ....skyreels_v3.jobs.extension.plan import CUT_PREFIX_FRAMES, FPS, LONGEST_PREFIX, PlanSource, plan_extension
from ....skyreels_v3.jobs.extension.roll import Tail
from ....skyreels_v3.jobs.extension.script import CUT
from ....skyreels_v3.jobs.film.grammar.check import ENTRIES
from ....skyreels_v3.jobs.film.grammar.line import DUB, SCENE, SPEAK, SPOKEN, FilmLine
from ....skyreels_v3.jobs.film.graph import Shot
from ....skyreels_v3.jobs.film.look import Look, take_settings
from ....skyreels_v3.jobs.film.measures import likeness
from ....skyreels_v3.jobs.film.order import ready
from ....skyreels_v3.jobs.film.plan import FilmPlan
from ....skyreels_v3.jobs.film.takes import ShotState, score_of, shown_film, states
from ....skyreels_v3.jobs.reference import SLOTS
from ....skyreels_v3.recipes import Job, latent_frames
from ....skyreels_v3.resume.folder import RunFolder
from ....skyreels_v3.resume.windows import LongRun
from ....skyreels_v3.speech.recording import FPS as SPOKEN_FPS
from ....skyreels_v3.units import gb
from ....skyreels_v3.video.concat import joined_sound
from ....skyreels_v3.video.join import count_frames, join
from ....skyreels_v3.video.rates import resample_indices, written_rate
from ... import versions
from ...encoders.clip_vision import image_tokens
from ...encoders.prompts import Prompts
from ...encoders.speech import Speech
from ..dub import KnownDub
from ..folders import runs_folder
from ..identity import Node, model_stamps
from ..lead import Lead, LeadWriting
from ..progress import RunProgress
from ..results import RESULT, keep_used, leave_playable, prune_runs
from .kept import TAKE, is_whole, keep_take, measure_late, middle_of, note_film, shelf_of, show, tail_of, used_parts
from .material import Material, footage_tail, in_line
from .progress import PartProgress
from .report import cards_of, report_of
from .shots import (
    FilmModels,
    OneLine,
    RollRun,
    SceneRun,
    ShotRun,
    TakeRequest,
    check_memory,
    last_picture,
    roll_line,
    scene_window,
)
from .spoken import CONNECTION, DubbedRun, SpokenRun, dub_of, heard_in, look_at, speech_windows, strength_of
from .watched import Watched

NAME = "shots"  # begins the folder's name
LAYOUT = 1  # of the folder; another number makes every film anew
STEPS = 8  # of the progress bar for each pass


@dataclass(frozen=True)
class FilmRequest:
    """What the artist asks for."""

    shots: tuple[Shot, ...]
    material: Material
    look: Look
    rate: Fraction
    fit: str
    size: dict[str, Any]  # as the artist gives it, see `inputs.size.chosen_size`


class FilmRun:
    """One run of Film."""

    def __init__(self, node: Node, models: FilmModels, request: FilmRequest):
        self.node, self.models, self.request = node, models, request
        self.shots, self.material = request.shots, request.material
        self.progress, self._passed = RunProgress(node.id, "pass", 1, STEPS), 0
        self.prompts = Prompts(models.clip)
        self.speech: dict[int, Speech] = {}
        self.dubs: dict[int, KnownDub] = {}  # of lines that are to be made
        self.model_keys = {
            job: digest(node.inputs[entry], model_stamps([models.by_job[job]]))
            for job, (entry, _) in ENTRIES.items()
            if models.by_job.get(job) is not None
        }
        self._keys = [self.material.key(place) for place in range(len(self.shots))]
        self.own = cache(self._own)  # asked for each line again with every take
        self.notes = list(self.material.notes)

    # What shots follow from, and where they stand.

    def _own(self, place: int, number: int) -> str:
        """The key of all that a shot's line decides for one of its takes."""
        line, look = self.shots[place].line, self.request.look
        if line.job is None:
            return digest("clip", LAYOUT, self._keys[place], self.request.fit)
        said = line.kind, line.prompt, line.seconds, self._keys[place]
        extra: tuple = (look.colour_anchor,) if line.job in (Job.EXTENSION, Job.SHOT) else ()
        if line.job is Job.AVATAR:
            extra = self.node.inputs["clip_vision"], self.node.inputs["audio_encoder"]
        if line.kind == DUB:
            options = line.options.box, strength_of(line), line.options.start
            extra = *extra, RECIPE, options, self.request.fit, self.request.size
        return digest("shot", LAYOUT, said, take_settings(look, line, number), self.model_keys[line.job], extra)

    def where(self, folder: RunFolder) -> tuple[ShotState, ...]:
        return states(self.shots, self.own, shelf_of(folder, self.node.id))

    def frames(self, place: int) -> int:
        """Of a shot in the film, as far as that is known before it is made."""
        rate, line = self.request.rate, self.shots[place].line
        if line.kind == DUB:
            info = self.material.footage[place].info
            made_rate = written_rate(info.frame_rate)
            return _shown(info.frames_at(made_rate), made_rate, rate)
        if place in self.material.footage:
            return self.material.footage[place].info.frames_at(rate)
        if line.kind == SPEAK:
            return _shown(self.material.spoken_frames(place), SPOKEN_FPS, rate)
        made = scene_window(line).new_frames if line.kind == SCENE else self._rolls(line).new_frames
        return _shown(made, FPS, rate)

    def _rolls(self, line: FilmLine):
        look = self.request.look
        source = PlanSource(look.width, look.height, LONGEST_PREFIX)
        return plan_extension([roll_line(line)], source, width=look.width, height=look.height)

    def memory(self, places: Sequence[int]) -> int:
        """Bytes that the largest forward of these shots takes beside the weights."""
        needs = [0]
        for place in places:
            line = self.shots[place].line
            if line.kind == SCENE:
                needs.append(self._need(Job.REFERENCE, scene_window(line).latent_frames, SLOTS))
            elif line.kind == SPEAK:
                window = speech_windows(self.material.spoken_frames(place)).key_pass
                needs.append(self._need(Job.AVATAR, latent_frames(window.stop - window.start), 0))
            elif line.kind == DUB:
                plan = self.dubs[place].plan
                needs.append(check_memory(self.models, (plan.width, plan.height), Job.AVATAR, plan.timing.latents, 0))
            elif line.job is not None:
                prefix = latent_frames(max(CUT_PREFIX_FRAMES.values()))
                needs += [self._need(roll.job, roll.latent_frames, prefix) for roll in self._rolls(line).rolls]
        return max(needs)

    def _need(self, job: Job, latents: int, beside: int) -> int:
        look = self.request.look
        return check_memory(self.models, (look.width, look.height), job, latents, beside)

    # The run.

    def run(self) -> tuple[Path, torch.Tensor, str, list[dict[str, Any]]]:
        """Makes what is not made yet. Returns the film's path, its last frames [n, H, W, 3], a report and cards."""
        started = time.perf_counter()
        look, rate = self.request.look, self.request.rate
        inputs = self.node.inputs["clip"], self.node.inputs["vae"]
        base = digest((NAME, LAYOUT, av.__version__), inputs, (look.width, look.height, rate, look.codec))
        prune_runs()
        with RunFolder(runs_folder(), f"{NAME}-{base}") as folder:
            folder.keep_only(part for part in folder.parts if is_whole(folder, part))
            now = self._measured_late(folder)
            frames = tuple(map(self.frames, range(len(self.shots))))
            plan = FilmPlan(look.width, look.height, rate, self.shots, frames, now)
            self._look_through(plan)
            need = self.memory(plan.to_make)
            told_memory = [f"About {gb(need)} for the largest pass beside the weights."] if need else []
            versions.tell(self.node.id, plan.describe(), *told_memory, *self.notes)
            results = [part for part in folder.parts if part.startswith(RESULT)]  # until there is a new one
            keep_used(folder, [*results, *used_parts(folder, now)])
            made = 0
            try:
                self._encode(plan)
                for place, number in self._to_make(folder, plan):
                    made += self.shots[place].line.job is not None
                    self._make(folder, place, number)
            except BaseException:
                leave_playable(folder, self.node.id, partial(self._join_so_far, folder))
                raise
            now = self.where(folder)
            path, count, tail = self._finish(folder, now)
        took = time.perf_counter() - started
        infos = {part.removeprefix(TAKE): folder.info(part) for part in folder.parts if part.startswith(TAKE)}
        report = report_of(plan, now, infos, made, took, folder.folder, self.notes, count, look.codec)
        versions.tell(self.node.id, f"{count} frames, {float(count / rate):.2f} s, in {took:.0f} s", *self.notes)
        cards = cards_of(plan, now, infos, path, runs_folder().parent)
        return path, tail, report, cards

    def _look_through(self, plan: FilmPlan) -> None:
        """The footage of what is to be dubbed: what is wrong with it, or is to be known of it, is told before."""
        for place in plan.to_make:
            line = self.shots[place].line
            if line.kind == DUB:
                source, frames = self.material.footage[place], self.material.spoken_frames(place)
                settings, asked = take_settings(self.request.look, line, 1), self._dub(place)
                with in_line(line):
                    self.dubs[place] = look_at(self.node.id, line, source, frames, asked, settings)
                self.notes += [f"Line {line.number}: {note}" for note in self.dubs[place].plan.notes]

    def _dub(self, place: int) -> Asked:
        return dub_of(self.shots[place].line, self.material.footage[place], self.request.look, self.request.size)

    def _encode(self, plan: FilmPlan) -> None:
        """Texts and speech of all that is to be made, before the first transformer is loaded."""
        look, texts = self.request.look, []
        for place in plan.to_make:
            line = self.shots[place].line
            if line.job is not None:
                settings = take_settings(look, line, 1)
                texts += [line.prompt or CONNECTION, *([] if settings.negative is None else [settings.negative])]
        self.prompts.prepare(texts)
        for place in plan.to_make:
            if self.shots[place].line.kind in SPOKEN:
                with in_line(self.shots[place].line):
                    self.speech[place] = heard_in(self.material, place, self.models.audio_encoder)
        passes = 0
        for place in plan.to_make:
            takes = plan.states[place].missing or self.shots[place].line.options.numbers
            passes += self._passes(place) * len(takes)
        self.progress = RunProgress(self.node.id, "pass", max(1, passes), STEPS)

    def _passes(self, place: int) -> int:
        line = self.shots[place].line
        if line.kind == SPEAK:
            windows = speech_windows(self.speech[place].frames)
            return 1 + len(windows.windows)
        if line.kind == DUB:
            return len(self.dubs[place].plan.parts)
        return 1 if line.job in (None, Job.REFERENCE) else len(self._rolls(line).rolls)

    def _to_make(self, folder: RunFolder, plan: FilmPlan) -> Iterator[tuple[int, int]]:
        """(place of a shot, number of a take), one after another, until nothing is missing."""
        rank = {place: number for number, place in enumerate(plan.to_make)}
        while places := ready(self.shots, now := self._measured_late(folder)):
            place = min(places, key=lambda one: rank.get(one, one))
            yield place, now[place].missing[0]

    def _make(self, folder: RunFolder, place: int, number: int) -> None:
        """Makes a take."""
        now = self.where(folder)
        key = now[place].keys[number]
        line = self.shots[place].line
        info: dict[str, Any] = {"own": self.own(place, number), "score": None, "number": number, "windows": []}
        if line.job is None:
            pieces = self._footage(place)
            info["frames"] = sum(map(count_frames, pieces))
            tail = footage_tail(self._lead(place))
            picture = last_picture(tail)[0].mul(255).round().to(torch.uint8)
            self.progress.start(self._passed, f"line {line.number}: {line.file or 'source'}")
        else:
            run = self._shot_run(folder, place, number, now)
            before = self._frames_before(folder, now, place)
            tail, watched, info["windows"] = self._windows(folder, run, key, before)
            info["frames"] = sum(folder.info(one)["frames"] for one in info["windows"])
            picture = watched.middle
            info["measures"] = self._measured(folder, now, place, watched)
            info["score"] = score_of(info["measures"])
        self._passed += self._passes(place)
        self._commit(folder, key, tail, picture, info)

    def _commit(self, folder: RunFolder, key: str, tail: Tail, picture: torch.Tensor, info: dict[str, Any]) -> None:
        keep_take(folder, key, tail, picture, info)
        for window in info["windows"]:
            self._long_run(folder, FPS).drop_state(window)
        folder.keep_only(one for one in folder.parts if one not in (f"key-frames-{key}", f"heads-{key}"))

    def _shot_run(self, folder: RunFolder, place: int, number: int, now: Sequence[ShotState]) -> ShotRun:
        line, look = self.shots[place].line, self.request.look
        take = TakeRequest(self.node, self.models, self.prompts, look, line, take_settings(look, line, number))
        if line.kind == SCENE:
            pictures = [
                one if isinstance(one, torch.Tensor) else last_picture(self._tail(folder, now, one))
                for one in self.material.pictures[place]
            ]
            return SceneRun(take, pictures)
        key = now[place].keys[number]
        if line.kind == DUB:
            footage = self.material.footage[place], self.request.fit, self._dub(place)
            return DubbedRun(take, *footage, self.speech[place], key, self.dubs[place])
        before = self._tail(folder, now, place - 1)
        if line.kind == SPEAK:
            return SpokenRun(take, before, self.speech[place], key, self.material.tables.get(place))
        return RollRun(OneLine(take, before))

    def _frames_before(self, folder: RunFolder, now: Sequence[ShotState], place: int) -> torch.Tensor | None:
        """uint8 [n, H, W, 3] that a shot goes on from without a cut; None where it begins with a new picture."""
        if self.shots[place].line.kind in (SCENE, CUT, DUB):
            return None
        return to_uint8(tail_to_signed(self._tail(folder, now, place - 1).frames))

    def _measured(self, folder: RunFolder, now: Sequence[ShotState], place: int, watched: Watched) -> dict[str, float]:
        """What a take measures; likeness where a CLIP vision model is connected, to the references or what it cuts."""
        found: dict[str, float] = {}
        if watched.motion is not None:
            found["motion"] = watched.motion
        if watched.seam is not None:
            found |= {"jump": watched.seam.jump, "colour": watched.seam.colour}
        if self.models.clip_vision is not None:
            found |= self._likeness(folder, now, place, watched.middle)
        return {name: round(value, 4) for name, value in found.items()}

    def _likeness(
        self, folder: RunFolder, now: Sequence[ShotState], place: int, middle: torch.Tensor
    ) -> dict[str, float]:
        """Of a take's middle frame to its references, or to what it cuts from; nothing for another kind of shot."""
        line = self.shots[place].line
        pictures = [one for one in self.material.pictures.get(place, ()) if isinstance(one, torch.Tensor)]
        if line.kind == CUT:
            pictures = [last_picture(self._tail(folder, now, place - 1))]
        if not pictures:
            return {}
        tokens = image_tokens(self.models.clip_vision)
        looks = [tokens(clip_pixels(picture_to_signed(to_rgb8(one)))) for one in (middle, *pictures)]
        return {"likeness": round(likeness(looks[0], looks[1:]), 4)}

    def _measured_late(self, folder: RunFolder) -> tuple[ShotState, ...]:
        """Where shots stand, once takes that were made before a CLIP vision model was connected are measured too."""
        now = self.where(folder)
        while self.models.clip_vision is not None:
            if not measure_late(folder, self.shots, now, partial(self._likeness, folder, now)):
                break
            now = self.where(folder)
        return now

    def _windows(
        self, folder: RunFolder, shot: ShotRun, key: str, past: torch.Tensor | None
    ) -> tuple[Tail, Watched, list[str]]:
        """Makes the windows of a take that are not there; those of an interrupted run are."""
        run = self._long_run(folder, shot.made_rate)
        keys = [f"window-{key}-{index:03d}" for index in range(len(shot.windows))]
        done = run.finished(keys)
        shot.progress = PartProgress(self.progress, self._passed)
        watched = Watched(sum(window.new_frames for window in shot.windows), past)
        state: Any = None
        if done < len(keys):
            state = shot.prepare(folder, done)
        if done:
            state = shot.state_type(**watched.go_on(run.state(keys[done - 1])))
        before = sum(window.new_frames for window in shot.windows[:done])
        for index, window in enumerate(shot.windows[done:], start=done):
            with run.window(keys[index], window.new_frames, before) as video:
                state = shot.make(index, state, folder, watched.seen(video.write))
                video.state = {**state.tensors(), **watched.tensors()}
            shot.progress.show(video.last)
            before += window.new_frames
            if index:
                run.drop_state(keys[index - 1])
        return shot.tail(state), watched, keys

    def _long_run(self, folder: RunFolder, made_rate: Fraction | int) -> LongRun:
        look = self.request.look
        return LongRun(folder, look.width, look.height, made_rate, self.request.rate, look.codec)

    def _tail(self, folder: RunFolder, now: Sequence[ShotState], place: int) -> Tail:
        return tail_of(folder, now[place].chosen or "")

    def _lead(self, place: int) -> Lead:
        look = self.request.look
        return Lead(
            self.material.footage[place], look.width, look.height, self.request.fit, self.request.rate, look.codec
        )

    def _footage(self, place: int) -> list[Path]:
        with LeadWriting(self._lead(place), self.node.id) as writing:
            return writing.pieces()

    # The video.

    def _pieces(self, folder: RunFolder, now: Sequence[ShotState], place: int) -> list[Path]:
        if self.shots[place].line.job is None:
            return self._footage(place)
        windows = folder.info(f"{TAKE}{now[place].chosen}")["windows"]
        return [folder.path(f"{window}.mp4") for window in windows if folder.info(window)["frames"]]

    def _joined(self, folder: RunFolder, now: Sequence[ShotState], places: Sequence[int], path: Path) -> int:
        """Writes the shots at these places, one after another, each with its sound."""
        lengths = [folder.info(f"{TAKE}{now[place].chosen}")["frames"] for place in places]
        pieces = [piece for place in places for piece in self._pieces(folder, now, place)]
        heard = [self.material.heard(place, self.shots[place].line) for place in places]
        sound = joined_sound(heard, self.request.rate, lambda number: (lengths[number], True))
        return join(pieces, path, self.request.rate, sound, self.progress.joining(sum(lengths)))

    def _finish(self, folder: RunFolder, now: Sequence[ShotState]) -> tuple[Path, int, torch.Tensor]:
        places = range(len(self.shots))
        result = f"{RESULT}{digest([state.chosen for state in now])}"
        path = folder.path(f"{result}.mp4")
        if not folder.done(result):
            with folder.writing():
                count = self._joined(folder, now, places, path)
            folder.commit(result, [path.name], {"frames": count})
        keep_used(folder, [result, *used_parts(folder, now)])
        for state in now:
            if state.chosen and not folder.path(f"{TAKE}{state.chosen}.jpg").exists():  # nothing is made anew for it
                show(folder, state.chosen, middle_of(folder, state.chosen))
        note_film(folder, self.node.id, shown_film(self.shots, now, self.own))
        tail = self._tail(folder, now, places[-1])
        return (
            path,
            folder.info(result)["frames"],
            torch.cat([last_picture(Tail(tail.frames[:, :, : number + 1], tail.anchor)) for number in _last(tail)]),
        )

    def _join_so_far(self, folder: RunFolder, path: Path) -> bool:
        now = self.where(folder)
        places = [place for place, state in enumerate(now) if state.made]
        if all(self.shots[place].line.job is None for place in places):
            return False
        self._joined(folder, now, places, path)
        return True


def _shown(made: int, made_rate: Fraction | int, rate: Fraction) -> int:
    return len(resample_indices(made, made_rate, rate))


def _last(tail: Tail) -> range:
    """Which frames of a tail a node puts out: the last 25."""
    count = tail.frames.shape[2]
    return range(max(0, count - 25), count)
