"""A strip of a video's time as SVG: its shots and rolls, changes and cuts, colours, mouth and speech."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from .measured import Measured

WIDTH, BAR, HIGH, GAP, LEFT = 960, 22, 56, 20, 74  # pixels
INK, QUIET, LINE, OTHER, BAD, GOOD = "#1f2328", "#59636e", "#0969da", "#8c959f", "#d1242f", "#1a7f37"
FILLS = {"source": "#d1d5da", "clip": "#d1d5da", "cut": "#ffd8b5", "scene": "#ffd8b5", "speak": "#d3f0d8"}


def strip(one: Measured) -> str:
    """All rows that there is something for, one below the other."""
    count = max(one.watched.frames, 1)
    parts, top = [], 0.0

    def x(frame: float) -> float:
        return LEFT + (WIDTH - LEFT) * frame / count

    parts.append(_word(0, top + BAR / 2, "script" if one.scripted else "shots", QUIET))
    for index, roll in enumerate(one.rolls):
        stretch = roll.stretch
        wide = x(stretch.stop) - x(stretch.start)
        fill = FILLS.get(stretch.kind, "#ddf4ff" if index % 2 else "#b6e3ff")
        parts.append(_box(x(stretch.start), top, wide - 1, BAR, fill, stretch.label))
        if wide > 7 * len(stretch.label):
            parts.append(_word(x(stretch.start) + 4, top + BAR / 2, stretch.label, INK, 11))
    top += BAR + GAP / 2
    changes = one.watched.changes
    parts.append(
        _row(top, "change", [(changes, LINE)], x, float(changes.max(initial=0)), f"{changes.max(initial=0):.0f}")
    )
    for frame, colour, what in _marks(one):
        parts.append(
            f'<line x1="{x(frame):.1f}" x2="{x(frame):.1f}" y1="{top - 4}" y2="{top + HIGH + 4:.1f}" stroke="{colour}" '
            f'stroke-width="2"><title>{escape(what)}</title></line>'
        )
    top += HIGH + GAP
    if len(one.rolls) > 1 or one.rolls[0].drift:
        steps = np.zeros(count)
        for roll in one.rolls:
            steps[roll.stretch.start : roll.stretch.stop] = roll.drift
        most = max(2.3, float(steps.max()))
        parts.append(_row(top, "drift", [(steps, LINE)], x, most, f"{most:.1f}"))
        top += HIGH + GAP
    if one.lips is not None and one.lips.mouth and one.lips.heard:
        tracks = [(np.array(one.lips.heard), OTHER), (np.array(one.lips.mouth), LINE)]
        parts.append(_row(top, "mouth", tracks, x, 1.0, "speech grey"))
        top += HIGH + GAP
    head = f'<svg viewBox="0 0 {WIDTH} {top:.0f}" width="100%" font-family="sans-serif" role="img">'
    return "".join([head, *parts, "</svg>"])


def _marks(one: Measured) -> list[tuple[int, str, str]]:
    """(frame, colour, what it is) of cuts that were found, and of those that are missing."""
    fps = float(one.watched.fps)
    marks = []
    for frame in one.found:
        wrong = frame in one.cuts.unasked
        colour = BAD if wrong else GOOD if one.cuts.asked else OTHER
        marks.append((frame, colour, f"{'cut that nobody asked for' if wrong else 'cut'} at {frame / fps:.2f} s"))
    return marks + [(frame, BAD, f"no cut at {frame / fps:.2f} s, where one was asked") for frame in one.cuts.missed]


def _row(top: float, name: str, tracks: Sequence[tuple[np.ndarray, str]], x, most: float, note: str) -> str:
    parts = [_word(0, top + HIGH / 2, name, QUIET), _word(0, top + HIGH / 2 + 14, note, QUIET, 10)]
    parts.append(_box(LEFT, top, WIDTH - LEFT, HIGH, "#f6f8fa", name))
    for values, colour in tracks:
        shown = values if most else np.zeros_like(values)
        points = " ".join(
            f"{x(frame + 0.5):.1f},{top + HIGH * (1 - min(1.0, value / (most or 1))):.1f}"
            for frame, value in _thinned(shown)
        )
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    return "".join(parts)


def _thinned(values: np.ndarray) -> list[tuple[int, float]]:
    """At most two points for each pixel, the highest kept: a peak of one frame is what is looked for."""
    step = max(1, len(values) // WIDTH)
    return [
        (start + int(values[start : start + step].argmax()), float(values[start : start + step].max()))
        for start in range(0, len(values), step)
    ]


def _box(x: float, y: float, wide: float, high: float, fill: str, title: str) -> str:
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(wide, 0.5):.1f}" height="{high:.1f}" fill="{fill}">'
        f"<title>{escape(title)}</title></rect>"
    )


def _word(x: float, y: float, text: str, colour: str, size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" font-size="{size}" dominant-baseline="middle">'
        f"{escape(text)}</text>"
    )
