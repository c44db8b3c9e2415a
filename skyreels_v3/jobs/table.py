"""How plans are written for artists: times, and rows below each other."""

from collections.abc import Iterable, Sequence


def seconds(frames: int, fps: int) -> str:
    """Frames as seconds with at most two decimals: 36 at 24 a second are "1.5"."""
    return f"{frames / fps:.2f}".rstrip("0").rstrip(".")


def table(rows: Iterable[Sequence[object]], text: bool = False) -> list[str]:
    """Rows of equal length -> lines, aligned right. text: the last column is text, of which nothing is aligned."""
    cells = [tuple(map(str, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    if text:
        widths[-1] = 0
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in cells]
