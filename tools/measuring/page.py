"""What was measured as a page for people."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence
from fractions import Fraction
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np
from PIL import Image

from .measured import Measured, Roll
from .plots import strip
from .ranking import MEASURES, Groups, Measure, is_best, shown_measures, text_of

THUMBS = 8  # frames of a video on the page
GUIDE = "docs/measures.md"
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1f2328; max-width: 1100px; margin: 24px auto; padding: 0 16px }
table { border-collapse: collapse; margin: 8px 0 20px } th, td { padding: 5px 10px; border-bottom: 1px solid #d1d5da }
td.number { text-align: right; font-variant-numeric: tabular-nums } .best { font-weight: 700; color: #1a7f37 }
.thumbs { display: flex; gap: 4px; overflow-x: auto } .thumbs img { height: 84px } .wrap { overflow-x: auto }
section { border-top: 2px solid #d1d5da; margin-top: 28px; padding-top: 4px } .quiet { color: #59636e }
video { max-height: 260px; max-width: 100% } summary { cursor: pointer } h2 { margin: 10px 0 }
"""


def as_page(groups: Groups, problems: dict[str, str], folder: Path) -> str:
    """HTML that needs no other file but the videos, which it plays from where they are. folder: where it will lie."""
    shown = shown_measures(groups)
    body = ["<h1>Measured</h1>", _overview(groups, shown)]
    sentences = dict.fromkeys(sentence for group in groups for one, _ in group for sentence in one.left_out)
    if sentences or problems:
        told = [*sentences, *(f"{path}: {why}" for path, why in problems.items())]
        body += ["<h2>Left out</h2><ul>", *(f"<li>{escape(one)}</li>" for one in told), "</ul>"]
    body += [_section(one, place, folder) for group in groups for place, (one, _) in enumerate(group, start=1)]
    body.append("<section><h2>What the numbers are</h2><table>")
    body += [f"<tr><td>{escape(one.title)}</td><td>{escape(one.what)}</td></tr>" for one in MEASURES]
    body.append(
        "</table><p>They compare takes of one shot. None says whether a video is good. Which of them compare with "
        f"those of the report, and which are not, says {GUIDE} of the pack.</p></section>"
    )
    title = "Measured videos"
    return (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>{"".join(body)}</html>\n'
    )


def _overview(groups: Groups, shown: Sequence[Measure]) -> str:
    head = "".join(f'<th title="{escape(measure.what)}">{escape(measure.title)}</th>' for measure in shown)
    rows = []
    for group in groups:
        for place, (one, _) in enumerate(group, start=1):
            cells = []
            for measure in shown:
                best = is_best(measure, one, [m for m, _ in group])
                cells.append(f'<td class="number{" best" if best else ""}">{text_of(measure, one) or "-"}</td>')
            thumb = f'<img height="48" alt="" src="{_data(one.watched.picture(one.watched.frames // 2), 48)}">'
            name = f'<a href="#{quote(str(one.task.video))}">{escape(one.task.name)}</a>'
            rows.append(f"<tr><td>{place}</td><td>{thumb}</td><td>{name}</td>{''.join(cells)}</tr>")
    return f'<div class="wrap"><table><tr><th></th><th></th><th>video</th>{head}</tr>{"".join(rows)}</table></div>'


def _section(one: Measured, place: int, folder: Path) -> str:
    watched = one.watched
    facts = [f"{watched.width} x {watched.height}", f"{watched.seconds:.2f} s", f"{float(watched.fps):.4g} a second"]
    facts.append(f"cuts by {one.found_by}")
    if one.scripted and one.cuts.asked:
        facts.append(
            f"{one.cuts.hits} of {len(one.cuts.asked)} asked cuts found, {len(one.cuts.unasked)} not asked for"
        )
    for kind, values in one.likeness.items():
        each = ", ".join(f"{path.name} {value:.3f}" for path, value in zip(one.task.references, values))
        facts.append(f"{kind}: {each}")
    if one.lips is not None:
        lag = one.lips.lag
        late = f"mouth {abs(lag or 0)} frames {'late' if (lag or 0) > 0 else 'early'}" if lag else "mouth in step"
        facts.append(f"{'no lag of a mouth is told' if lag is None else late} (by {one.lips.by})")
    times = {number: f"{float(number / watched.fps):.1f} s" for number in watched.pictures}
    thumbs = "".join(
        f'<img alt="{times[number]}" title="{times[number]}" src="{_data(image, 84)}">'
        for number, image in _thumbs(one)
    )
    try:
        link = quote(os.path.relpath(one.task.video, folder).replace(os.sep, "/"))
    except ValueError:  # on another drive of Windows
        link = one.task.video.resolve().as_uri()
    rolls = ""
    if len(one.rolls) > 1:
        lines = "".join(_roll_row(roll, watched.fps) for roll in one.rolls)
        rolls = (
            "<details><summary>Roll by roll</summary><table><tr><th>roll</th><th>from s</th><th>seam: jump</th>"
            f"<th>seam: colour</th><th>drift</th></tr>{lines}</table></details>"
        )
    return (
        f'<section id="{escape(quote(str(one.task.video)))}"><h2>{place}. {escape(one.task.name)}</h2>'
        f'<p class="quiet">{escape("; ".join(facts))}</p><div class="thumbs">{thumbs}</div>{strip(one)}{rolls}'
        f'<details><summary>Play</summary><video controls preload="none" src="{link}"></video></details></section>'
    )


def _roll_row(roll: Roll, fps: Fraction) -> str:
    seam = ("-", "-") if roll.seam is None else (f"{roll.seam.jump:.1f}", f"{roll.seam.colour:.1f}")
    numbers = (f"{float(roll.stretch.start / fps):.2f}", *seam, f"{roll.drift:.1f}")
    cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
    return f"<tr><td>{escape(roll.stretch.label)}</td>{cells}</tr>"


def _thumbs(one: Measured) -> list[tuple[int, Image.Image]]:
    """The middle of each shot and roll, and others between where there are few."""
    pictures = one.watched.pictures
    middles = {min(pictures, key=lambda at: abs(at - (r.stretch.start + r.stretch.stop) // 2)) for r in one.rolls}
    if len(middles) > THUMBS:
        chosen = sorted(middles)
        middles = {chosen[round(index)] for index in np.linspace(0, len(chosen) - 1, THUMBS)}
    rest = [at for at in pictures if at not in middles]
    more = THUMBS - len(middles)
    middles |= {rest[round(index)] for index in np.linspace(0, len(rest) - 1, min(more, len(rest)))}
    return [(at, pictures[at]) for at in sorted(middles)]


def _data(image: Image.Image, high: int) -> str:
    small = image.resize((max(1, round(high * image.width / image.height)), high))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
