"""Lines that begin like an order of a film, or hold one, and cannot be followed: as prompts they would be made."""

import re

from ....errors import InputError
from ...extension.script_marks import plain
from .line import CLIP, DUB, EXAMPLES, SCENE, SPEAK

_SCENE, _SPEAK, _CLIP, _DUB = (
    rf"(?:{word}(?![^\W\d])|{chinese})"
    for word, chinese in (("scene", "场景|場景"), ("speak", "说话|說話"), ("clip", "片段"), ("dub", "配音"))
)
_LENGTH = r"(?:\d[\d.,]*|[.,]\d+)\s*(?:s|sec\.?|secs|seconds?|秒钟?)(?![^\W_])"
_NAMES = r"\[[^\]]{0,200}\]\s*(?:\{[^}]{0,200}\}\s*)?"
_FOOTAGE = r"\.(?:mp4|m4v|mov|mkv|webm|avi|gif|webp|avif|mpe?g|m?ts|wmv|flv|mxf|ogv|3gp)(?![^\W_])"
_SOUND = r"\.(?:wav|mp3|flac|ogg|opus|m4a|aac|aiff?|wma)(?![^\W_])"
# In a prompt: what no description of a picture has.
_HELD = {
    SCENE: rf"{_SCENE}\s*(?:{_LENGTH}\s*[\[({{:]|(?:\d[\d.,]*\s*)?{_NAMES}(?::|{_LENGTH}\s*:))",
    SPEAK: rf"{_SPEAK}\s*(?:{_LENGTH}\s*)?{_NAMES}:",
    CLIP: rf"{_CLIP}\s+[^\[\]{{}}:.]{{0,200}}{_FOOTAGE}",
    DUB: rf"{_DUB}\s+[^\[\]{{}}:.]{{0,200}}{_FOOTAGE}",
}
# At the beginning of a line more than that tells an order.
_BEGUN = {
    SCENE: rf"{_SCENE}\s*(?:$|{_LENGTH}|\d{{1,2}}:\d\d(?!\d)|[^:\[\]{{}}]*{_NAMES}:)|scenes\s*\[",
    SPEAK: rf"{_SPEAK}\s*(?:$|{_LENGTH}|[\[({{\"'“]|[^\s:]+\s*:|[^:]*{_SOUND})|speaks\s*\[",
    CLIP: rf"{_CLIP}\s*(?:\S*$|{_LENGTH}|\[|[^\[\]{{}}]*{_FOOTAGE})",
    DUB: rf"{_DUB}\s*(?:$|{_LENGTH}|[^\[\]{{}}]*{_FOOTAGE})",
}
_WORD = r"(?P<word>(?!(?:continue|cut)\b)[^\W\d_]{2,20})"
_OTHER = rf"{_WORD}\s*(?:{_LENGTH}\s*{_NAMES}:|\S+{_FOOTAGE}\s*(?:\d|\[|$))"

_begun = {kind: re.compile(one, re.IGNORECASE) for kind, one in _BEGUN.items()}
_held = {kind: re.compile(rf"(?<![^\W_]){one}", re.IGNORECASE) for kind, one in _HELD.items()}
_other = re.compile(_OTHER, re.IGNORECASE)
_label = re.compile(rf"[^:{{\[]{{1,30}}?[:|.)-]\s*(?={'|'.join(_HELD.values())})", re.IGNORECASE)


def label_end(text: str) -> int:
    """Where the order of `Shot 3: speak [anna]: ...` begins; 0 for a line without a label before its order."""
    label = _label.match(text)
    return label.end() if label else 0


def check_begun(number: int, text: str) -> None:
    """Raises InputError for a line that begins like an order but was not read as one. text: see `plain`."""
    for kind, pattern in _begun.items():
        if pattern.match(text):
            raise InputError(
                f"Line {number} begins like a {kind}, but is written in another way: write it as in {EXAMPLES[kind]}."
            )
    other = _other.match(text)
    if other:
        raise InputError(
            f"Line {number} begins with {other['word']!r}, but the keywords are scene, continue, cut, speak, clip and "
            "dub: write one of them."
        )


def check_held(number: int, prompt: str) -> None:
    """Raises InputError for a prompt that holds an order."""
    for pattern in _held.values():
        found = pattern.search(plain(prompt))
        if found:
            raise InputError(
                f"Line {number} holds {found[0].strip()[:60]!r} inside of its prompt: give each shot a line of its own."
            )
