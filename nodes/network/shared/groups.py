"""The group of this ComfyUI: there is one, as large as the last Load Model with several gpus wanted it."""

import atexit
import threading

import comfy.model_management

from ....distributed import cluster
from ....distributed.group import Group
from ....skyreels_v3.errors import InputError

MOST = 40  # heads of the released models: more cards would have nothing to do

_lock = threading.Lock()
_group: Group | None = None


def interrupted() -> None:
    """Raises where the artist wants to stop."""
    comfy.model_management.throw_exception_if_processing_interrupted()


def group_of(gpus: int, heads: int) -> Group:
    """The group of so many cards, 0 for all that there are; it starts with the first call that needs it.

    heads: of the model's attention.  Raises InputError where there are not so many cards, or too many.
    """
    global _group
    cluster.check_possible()
    cluster.connect()
    cards = cluster.cards()
    there = sum(cards.values())
    size = gpus or min(there, heads)
    if size > there:
        by_machine = ", ".join(f"{machine}: {count}" for machine, count in cards.items())
        raise InputError(f"gpus is {size}, but there are {there} cards ({by_machine}): choose at most {there}.")
    if size > heads:
        raise InputError(f"gpus is {size}, but this model can be shared by {heads} cards at most: choose fewer.")
    with _lock:
        if _group is None or _group.size != size:
            if _group is not None:
                _group.end()
            else:
                atexit.register(_end)
            _group = Group(size)
        return _group


def let_go() -> None:
    """Ends the group where no model uses it any more: its processes hold some memory of every card."""
    if _group is not None and not _group.users:
        _group.end()


def _end() -> None:
    if _group is not None:
        _group.end()
