"""Who and what a film shows: named pictures, each with a voice where there is one, from Cast to Film."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy_api.latest import io

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.jobs.film.grammar.line import same_name
from ...skyreels_v3.jobs.film.grammar.options import checked_name

CastType = io.Custom("SKYREELS_CAST")


@dataclass(frozen=True)
class Table:
    """A dialogue, and where its people are: masks and boxes, see `speakers.chosen_places`. speech: `Speech`."""

    speech: Any
    masks: Sequence[torch.Tensor | None]
    boxes: Sequence[str]


@dataclass(frozen=True)
class Member:
    """A person, thing or place. picture: IMAGE [1, H, W, C].  voice: AUDIO, or None.  table: who speaks there."""

    name: str
    picture: torch.Tensor
    voice: Mapping[str, Any] | None = None
    table: Table | None = None


def with_member(cast: Sequence[Member], member: Member) -> tuple[Member, ...]:
    """The cast with one more. Raises InputError for a name that cannot be, and one that is taken."""
    name = checked_name("A Cast node has the name", member.name)
    if any(same_name(other.name) == same_name(name) for other in cast):
        raise InputError(f"Two Cast nodes have the name {name!r}, but each needs its own: rename one of them.")
    return (*cast, member)


def member_of(cast: Sequence[Member], name: str) -> Member | None:
    """Who has this name, however it is written."""
    return next((one for one in cast if same_name(one.name) == same_name(name)), None)
