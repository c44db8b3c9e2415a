"""Several takes of a row: the same values with other seeds, under names of their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .rows import BatchError, Row, Template

MOST = 100  # takes of a row


def takes_of(
    row: Row, values: Mapping[tuple[str, str], object], template: Template, takes: int
) -> list[tuple[Row, dict[tuple[str, str], object]]]:
    """(row, its values) of each take. The first has the row's own seed, each other one the next number.

    With one take the row is as it was, so that a batch of several finds what one of a single take has made.
    Raises BatchError where the workflow has no seed, or more than one.
    """
    if takes == 1:
        return [(row, dict(values))]
    try:
        field = template.field("seed")
    except BatchError as error:
        raise BatchError(f"{error} Takes differ by their seeds: --takes needs a workflow with one.") from error
    own = values.get(field.key, template.prompt[field.node]["inputs"][field.input])
    least, most = field.options.get("min", 0), field.options.get("max", 2**64 - 1)
    seeds = [least + (int(str(own)) - least + number) % (most - least + 1) for number in range(takes)]
    return [
        (replace(row, name=f"{row.name}_take_{number}"), {**values, field.key: seed})
        for number, seed in enumerate(seeds, start=1)
    ]
