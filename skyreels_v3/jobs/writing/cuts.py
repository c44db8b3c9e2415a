"""The five kinds of cut, their tags, and what language models write in place of these."""

import re
from dataclasses import dataclass

from ..extension.script_marks import plain


@dataclass(frozen=True)
class Cut:
    """A kind of cut. name: as in the report on the models.  tag: at the head of a prompt.  what: it does.

    example: a prompt, without the tag.  words: what the tag is called, without CUT at its end.
    """

    name: str
    tag: str
    what: str
    example: str
    words: tuple[str, ...]


# Only the first two tags are published, the others are written in their manner.
CUTS = (
    Cut(
        "cut-in",
        "[ZOOM_IN_CUT]",
        "to a closer view of what is seen",
        "The scene cuts from the whole deck to a close-up of the woman in the yellow raincoat. "
        "Drops run down her hood, she narrows her eyes against the wind and smiles.",
        ("ZOOM_IN", "PUSH_IN", "DOLLY_IN", "CUT_IN", "CLOSE_UP", "CLOSEUP", "EXTREME_CLOSE_UP", "CLOSE_UP_SHOT"),
    ),
    Cut(
        "cut-out",
        "[ZOOM_OUT_CUT]",
        "to a wider view that shows the place",
        "The scene cuts from the woman in the yellow raincoat to a wide shot. "
        "She stands small at the bow of the wooden ferry, grey waves and a dark shore around her.",
        ("ZOOM_OUT", "PULL_OUT", "PULL_BACK", "DOLLY_OUT", "CUT_OUT", "WIDE", "WIDE_SHOT", "LONG_SHOT", "ESTABLISHING"),
    ),
    Cut(
        "shot/reverse shot",
        "[SHOT_REVERSE_SHOT_CUT]",
        "to the person on the other side of a talk or a look",
        "The scene cuts from the woman in the yellow raincoat to the bearded skipper across from her. "
        "He listens at the wheel and slowly nods.",
        ("SHOT_REVERSE_SHOT", "SHOT_REVERSE", "REVERSE_SHOT", "REVERSE", "REVERSE_ANGLE", "OVER_THE_SHOULDER"),
    ),
    Cut(
        "multi-angle",
        "[MULTI_ANGLE_CUT]",
        "to the same moment from another side",
        "The scene cuts from the front of the woman in the yellow raincoat to a low view from behind. "
        "Her hood flutters, the bow of the ferry rises before her.",
        ("MULTI_ANGLE", "MULTIANGLE", "ANGLE", "NEW_ANGLE", "LOW_ANGLE", "HIGH_ANGLE", "SIDE_ANGLE"),
    ),
    Cut(
        "cut away",
        "[CUT_AWAY_CUT]",
        "to something else that belongs to the moment",
        "The scene cuts from the woman in the yellow raincoat to the brass bell above the cabin door. "
        "It swings with the waves, the rope below it turns.",
        ("CUT_AWAY", "CUTAWAY", "INSERT"),
    ),
)
TAGS = {word: cut.tag for cut in CUTS for word in cut.words}

# At the head of a line or of its prompt: in brackets, or in capitals as tags are written.
_ORDER = r"cut(?:\s+(?:for\s+)?\d+(?:[.,]\d+)?\s*(?:s|sec|seconds?)?)?"
_BRACKETS = r"[\[(<]+\s*(?P<name>[A-Za-z][A-Za-z /_-]{1,40}?)\s*[\])>]+"
_BARE = r"(?P<bare>[A-Z]+(?:_[A-Z]+)+)(?![A-Za-z_])"
_TAG = re.compile(
    rf"(?P<before>^(?:[^:\[]{{0,60}}:\s*)?|^{_ORDER}\s*)[\"*_`]*(?:{_BRACKETS}|{_BARE})[\"*_`]*(?P<after>\s*:?\s*)",
    re.IGNORECASE,
)


def with_tag_mended(line: str) -> tuple[str, str | None]:
    """A line of a script with the tag of its cut as the models know it, or without one that is none of theirs.

    Also that tag as it was written, where it was taken out. Names in brackets that are no tag stay.
    """
    found = _TAG.match(plain(line))
    if found is None or (found["bare"] and not found["bare"].isupper()):
        return line, None
    name = found["name"] or found["bare"]
    called = re.sub(r"[^A-Z]+", "_", name.upper()).strip("_")
    tag = TAGS.get(re.sub(r"_CUT$", "", called))
    # `[Anna] walks on.` and `scene 5s [cafe]: ...` name somebody.
    if tag is None and not called.endswith("_CUT") and not (name.isupper() and "_" in name):
        return line, None
    before, rest = line[: found.end("before")], line[found.end() :]
    if ":" in found["after"] and before and ":" not in before:  # `cut 4s [ZOOM_IN_CUT]: ...`
        before = f"{before.rstrip()}: "
    return (f"{before}{tag} {rest}" if tag else f"{before}{rest}").strip(), None if tag else name
