"""Where the people of a dialogue are: a box for each name, as an artist writes or draws it. Needs no torch."""

from collections.abc import Sequence

from ...errors import InputError
from ..extension.script_marks import plain, read_marked
from ..film.grammar.line import same_name

EXAMPLE = "`anna: 0.05, 0.1, 0.3, 0.9`"


def read_places(text: str, names: Sequence[str], people: int) -> dict[int, str]:
    """The box of each person as it is written, by their number from 0.

    text: lines of a name, a colon and left, top, right, bottom.  names: of all who speak; where they have none, the
    numbers from 1 stand for them.
    Raises InputError for a line without a name, and for a name that nobody has or that stands twice.
    """
    called = {same_name(name): person for person, name in enumerate(names)} or {
        str(person + 1): person for person in range(people)
    }
    marked = read_marked(text, f"each line of `places` is a name and a box, such as {EXAMPLE}")
    if marked.wrong:
        raise InputError(f"places: {next(iter(marked.wrong.values()))}")
    boxes: dict[int, str] = {}
    for number, line in marked.lines:
        name, colon, box = plain(line).partition(":")
        if not colon or not box.strip():
            raise InputError(f"Line {number} of `places` is {line[:40]!r}, but a name and a box are needed: {EXAMPLE}.")
        person = called.get(same_name(name))
        if person is None:
            there = ", ".join(names or called)
            raise InputError(
                f"Line {number} of `places` is of {name.strip()[:40]!r}, but those who speak are {there}: write one of "
                "these names, or take the line out."
            )
        if person in boxes:
            raise InputError(f"Line {number} of `places` gives {name.strip()!r} another box: leave one of them out.")
        boxes[person] = box.strip()
    return boxes
