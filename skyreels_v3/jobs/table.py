"""How plans are written for artists: times, and tables."""

from collections.abc import Iterable, Sequence


def seconds(frames: int, fps: int) -> str:
    """Frames as seconds with at most two decimals: 36 at 24 a second are "1.5"."""
    return f"{frames / fps:.2f}".rstrip("0").rstrip(".")


def table(rows: Iterable[Sequence[object]], text: bool = False) -> list[str]:
    """Rows of equal length, the first of them heads -> lines of a Markdown table, a blank line before and behind it.

    The page shows it as a table, and in a log its columns stand below each other. Aligned right; text: but for the
    last column.
    """
    cells = [tuple(str(cell).replace("|", "\\|") for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells)]
    if text:
        widths[-1] = 0
    rule = [f"{'-' * max(width - 1, 2)}:" for width in widths]
    if text:
        rule[-1] = "---"
    head, *others = [[cell.rjust(width) for cell, width in zip(row, widths)] for row in cells]
    return ["", *(f"| {' | '.join(row)} |" for row in [head, rule, *others]), ""]
