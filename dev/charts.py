"""Two kinds of charts as small SVG files, drawn by matplotlib: the same bytes for the same numbers and version."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

WIDTH, ROW, GAP, PIXELS_AN_INCH = 760, 26, 14, 96
INK, QUIET, AIM, PACK, OTHER, FLOOR = "#1f2328", "#59636e", "#d1242f", "#0969da", "#8c959f", "#d1d5da"
FILLS = {"pack": PACK, "other": OTHER, "floor": FLOOR}
LINES = (OTHER, "#bf8700", PACK)
STYLE = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and a changed number is a changed line
    "svg.hashsalt": "skyreels-v3",  # otherwise the names within the file are random
    "font.size": 9.75,  # 13 pixels
    "text.color": INK,
    "figure.titlesize": 11.25,
    "figure.titleweight": "bold",
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.1,
    "axes.spines.bottom": False,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.labelcolor": QUIET,
    "axes.axisbelow": True,
    "grid.color": OTHER,
    "grid.alpha": 0.45,
    "xtick.bottom": False,
    "xtick.labelcolor": QUIET,
    "ytick.left": False,
    "ytick.labelcolor": INK,
}


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
    places, headings, y = [], [], -GAP if rows[0].above else 0.0  # in pixels, downwards
    for row in rows:
        if row.above:
            headings.append((y + 0.8 * GAP, row.above))
            y += 2.4 * GAP
        places.append(y)
        y += ROW
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(title, y + 2 * ROW + (ROW if note else 0))
        axes.barh(places, [row.value for row in rows], height=ROW - 8, color=[FILLS[row.kind] for row in rows])
        for place, row in zip(places, rows, strict=True):
            axes.annotate(
                row.text, (max(row.value, row.aim or 0), place), (6, 0), textcoords="offset points", va="center"
            )
            if row.aim is not None:
                axes.vlines(row.aim, place - ROW / 2 + 1, place + ROW / 2 - 1, color=AIM, linewidth=2)
        for place, heading in headings:
            axes.annotate(heading, (0, place), color=QUIET, va="center")
        axes.set(xlim=(0, max(max(row.value, row.aim or 0) for row in rows)), ylim=(y - ROW / 2, -ROW / 2))
        axes.set_yticks(places, [row.label for row in rows])
        axes.set_xticks([])
        if note:
            axes.set_xlabel(note, loc="right")
        return _svg(figure, title, [astuple(row) for row in rows])


def lines(title: str, series: Sequence[tuple[str, Sequence[tuple[float, float]]]], across: str, up: str) -> str:
    """Curves from zero, each named at its end; series: (name, [(x, y), ...]), at most three. across, up: the axes."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(title, 352)
        for (_, points), colour in zip(series, LINES, strict=False):
            alone = "o" if len(points) == 1 else ""
            axes.plot(*zip(*points, strict=True), alone, color=colour, linewidth=2, clip_on=False)
        most_x, most_y = (max(point[axis] for _, points in series for point in points) for axis in (0, 1))
        ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(0, most_y)
        axes.set(xlim=(0, most_x), ylim=(0, ticks[-1]), yticks=ticks)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(axis="y")
        axes.tick_params(axis="y", labelcolor=QUIET)
        axes.set_xlabel(across, loc="right")
        axes.annotate(up, (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", color=QUIET)
        ends = sorted((points[-1][1], points[-1][0], name) for name, points in series)
        apart, lowest = ticks[-1] / 14, 0.0  # names do not lie on each other
        for y, x, name in ends:
            lowest = max(y, lowest)
            axes.annotate(name, (x, lowest), (6, 0), textcoords="offset points", va="center", annotation_clip=False)
            lowest += apart
        return _svg(figure, title, [list(series), across, up])


def drawn_from(svg: str) -> str:
    """The numbers that a chart shows, as text: the same whichever matplotlib drew it."""
    found = re.search(r"<dc:description>(.*?)</dc:description>", svg, re.DOTALL)
    return found[1] if found else ""


def _figure(title: str, height: float) -> tuple[Figure, Axes]:
    figure = Figure((WIDTH / PIXELS_AN_INCH, height / PIXELS_AN_INCH), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    figure.suptitle(title, x=10 / WIDTH, horizontalalignment="left")
    return figure, axes


def _svg(figure: Figure, title: str, numbers: Sequence[object]) -> str:
    text = io.StringIO()
    about = {"Title": title, "Description": json.dumps(numbers), "Creator": "dev/charts.py", "Date": None}
    figure.savefig(text, format="svg", metadata=about)
    return re.sub(r"[ \t]+$", "", text.getvalue(), flags=re.MULTILINE)
