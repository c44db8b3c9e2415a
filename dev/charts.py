"""Two kinds of charts as small SVG files, the same bytes for the same numbers; text is dark or light as the page is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, RIGHT, TOP, ROW, GAP = 760, 110, 44, 26, 14
LETTER = 6.9  # width of one, in the mean
STYLE = """text { font: 13px system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 15px } .quiet { fill: #59636e } .line { fill: none; stroke-width: 2.5 }
.axis { stroke: #8c959f; stroke-opacity: .45 } .mark { stroke: #d1242f; stroke-width: 2.5 }
.pack { fill: #0969da } .other { fill: #8c959f } .floor { fill: #8c959f; fill-opacity: .4 }
.c0 { stroke: #8c959f; fill: #8c959f } .c1 { stroke: #bf8700; fill: #bf8700 } .c2 { stroke: #0969da; fill: #0969da }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .quiet { fill: #9198a1 } .mark { stroke: #ff7b72 }
.pack { fill: #4493f8 } .c2 { stroke: #4493f8; fill: #4493f8 } }"""


@dataclass(frozen=True)
class Bar:
    """kind: pack, other or floor.  aim: where the mark stands, None for none.  above: a heading over this bar."""

    label: str
    value: float
    text: str
    kind: str = "pack"
    aim: float | None = None
    above: str = ""


def bars(title: str, rows: Sequence[Bar], note: str = "") -> str:
    """Horizontal bars from zero, each with its number, and its aim as a red mark."""
    largest = max(max(row.value, row.aim or 0) for row in rows)
    left = round(30 + LETTER * max(len(row.label) for row in rows))
    scale = (WIDTH - left - RIGHT) / largest
    y, parts = TOP, []
    for row in rows:
        if row.above:
            y += GAP
            parts.append(_text(left, y + 4, row.above, "quiet"))
            y += GAP
        parts.append(_text(left - 10, y + 15, row.label, anchor="end"))
        size = f'width="{row.value * scale:.1f}" height="{ROW - 8}"'
        parts.append(f'<rect class="{row.kind}" x="{left}" y="{y + 3}" {size} rx="2"/>')
        end = row.value if row.aim is None else max(row.value, row.aim)
        parts.append(_text(left + end * scale + 8, y + 16, row.text))
        if row.aim is not None:
            x = left + row.aim * scale
            parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + ROW - 2}"/>')
        y += ROW
    if note:
        y += GAP
        parts.append(_text(WIDTH - 10, y + 4, note, "quiet", "end"))
    return _svg(title, y + GAP, parts)


def lines(title: str, series: Sequence[tuple[str, Sequence[tuple[float, float]]]], across: str, up: str) -> str:
    """Curves from zero, each named at its end; series: (name, [(x, y), ...]), at most three. across, up: the axes."""
    height, left, right, top = 300, 56, 190, 74
    most_x = max(x for _, points in series for x, _ in points)
    ticks = _ticks(max(y for _, points in series for _, y in points))
    width, scale = WIDTH - left - right, (height - top) / ticks[-1]
    parts = [_text(left, top - 14, up, "quiet")]
    for tick in ticks:
        y = height - tick * scale
        parts.append(f'<line class="axis" x1="{left}" x2="{left + width}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(left - 8, y + 4, f"{tick:g}", "quiet", "end"))
    for tick in _ticks(most_x):
        if tick <= most_x:
            parts.append(_text(left + tick / most_x * width, height + 20, f"{tick:g}", "quiet", "middle"))
    parts.append(_text(left + width, height + 40, across, "quiet", "end"))
    ends = []
    for number, (name, points) in enumerate(series):
        path = " ".join(f"{left + x / most_x * width:.1f},{height - y * scale:.1f}" for x, y in points)
        parts.append(f'<polyline class="line c{number}" style="fill: none" points="{path}"/>')
        x, y = points[-1]
        ends.append([height - y * scale + 4, left + x / most_x * width + 8, name])
    for below, above in zip(sorted(ends)[1:], sorted(ends), strict=False):
        below[0] = max(below[0], above[0] + 17)  # names do not lie on each other
    parts += [_text(x, y, name) for y, x, name in ends]
    return _svg(title, height + 52, parts)


def _ticks(most: float) -> list[float]:
    """Round numbers from 0 to `most` or a little beyond, four to nine of them."""
    step = 10.0 ** math.floor(math.log10(most / 3))
    step *= next(factor for factor in (1, 2, 5, 10) if most / (step * factor) <= 6)
    return [step * number for number in range(math.ceil(most / step - 1e-9) + 1)]


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(title: str, height: float, parts: Sequence[str]) -> str:
    size = f'viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        _text(10, 24, title, "title"),
        *parts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"
