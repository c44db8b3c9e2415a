"""From what an artist asks for to a run of Film: the script read, all that it names found, size and rate decided."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import torch

from ....skyreels_v3.errors import InputError
from ....skyreels_v3.images.sizes import video_size
from ....skyreels_v3.jobs.extension.plan import FPS
from ....skyreels_v3.jobs.extension.script import told
from ....skyreels_v3.jobs.film.grammar.check import ENTRIES, Known, missing
from ....skyreels_v3.jobs.film.grammar.line import CLIP, SCENE, FilmLine
from ....skyreels_v3.jobs.film.grammar.script import parse_film
from ....skyreels_v3.jobs.film.graph import shots_of
from ....skyreels_v3.jobs.film.look import Look
from ....skyreels_v3.recipes import Job
from ....skyreels_v3.video.rates import written_rate
from ....skyreels_v3.video.sources.source import Source
from ...inputs.cast import Member
from ...inputs.files import input_file
from ...inputs.source import remarks
from ...network.model import skyreels_model
from ..identity import Node
from .material import Material, gathered, in_line
from .run import FilmRequest, FilmRun
from .shots import FilmModels
from .spoken import check_table


@dataclass(frozen=True)
class FilmAsked:
    """The inputs of Film. size: see `inputs.size.chosen_size`.  rate: None for that of the first footage.

    steps, shift: 0 for those that each model was distilled for.
    """

    script: str
    cast: Sequence[Member]
    source: Source | None
    size: dict[str, Any]
    rate: Fraction | None
    fit: str
    codec: str
    seed: int
    steps: int
    shift: float
    guidance: float
    negative: str
    colour_anchor: float


def film_run(node: Node, models: FilmModels, asked: FilmAsked) -> FilmRun:
    """The run. Raises InputError, one sentence a wrong line, before anything is encoded or made."""
    written = parse_film(asked.script)
    jobs = [job for job, model in models.by_job.items() if model is not None]
    known = Known(
        {member.name: member.voice is not None or member.table is not None for member in asked.cast},
        lambda name: input_file(name) is not None,
        jobs,
        models.audio_encoder is not None,
        models.clip_vision is not None,
        asked.source is not None,
        dialogues=[member.name for member in asked.cast if member.table is not None],
    )
    wrong = missing(written, known)
    if wrong:
        raise told(dict(sorted(wrong.items())))
    for job in jobs:
        _check_job(models.by_job[job], job)
    lines = [*([FilmLine(0, CLIP)] if asked.source is not None else []), *written]
    shots = shots_of(lines, [member.name for member in asked.cast])
    material = gathered(shots, asked.cast, asked.source)
    width, height, notes = _size(shots[0].line, material, asked.size)
    rate, said = _rate(material, asked.rate)
    for place, table in material.tables.items():
        with in_line(shots[place].line):
            said += check_table(table, models.by_job[Job.AVATAR], (width, height))
    material = replace(material, notes=[*notes, *material.notes, *said])
    look = Look(
        width,
        height,
        asked.seed,
        asked.steps or None,
        asked.shift or None,
        asked.guidance,
        asked.negative,
        asked.colour_anchor,
        asked.codec,
    )
    return FilmRun(node, models, FilmRequest(shots, material, look, rate, asked.fit, asked.size))


def _size(line: FilmLine, material: Material, size: dict[str, Any]) -> tuple[int, int, tuple[str, ...]]:
    """Of the film: a resolution takes its shape from the first shot."""
    if line.kind == SCENE:
        first = material.pictures[0][0]
        if not isinstance(first, torch.Tensor):
            raise ValueError("the first scene shows a shot before it")
        height, width = first.shape[-3:-1]
        shape, job = (width, height), Job.REFERENCE
    else:
        info = material.footage[0].info
        shape, job = (info.width, info.height), Job.EXTENSION
    asked = {"resolution": None, "width": None, "height": None, **size}
    return video_size(shape, asked["resolution"], asked["width"], asked["height"], job)


def _rate(material: Material, asked: Fraction | None) -> tuple[Fraction, list[str]]:
    """Frames a second of the film, and what is to be said of its footage."""
    rate, notes = asked, []
    for source in material.footage.values():
        rate = rate or written_rate(source.info.frame_rate, least=FPS)
        notes += [note for note in remarks(source.info) if note not in notes]
    return rate or Fraction(FPS), notes


def _check_job(model, job: Job) -> None:
    found = skyreels_model(model).job
    if found is not job:
        entry, checkpoint = ENTRIES[job]
        raise InputError(
            f"The model at {entry} does the {found.value} job, but {job.value} is needed there: connect {checkpoint}, "
            "or set its job in Load Model if the file's name misled it."
        )
