"""A script that a language model wrote as JSON, which it was not asked for, becomes lines."""

import json
import re
from typing import Any

_DATA = re.compile(r"[\[{].*[\]}]", re.DOTALL)
PROMPTS = ("prompt", "description", "text", "content")
KINDS = ("type", "kind", "keyword", "command", "action")
LENGTHS = ("seconds", "duration", "length", "duration_seconds")
PICTURES = ("references", "pictures", "images", "cast", "names")


def lines_of_data(text: str) -> str:
    """The lines of a script in JSON, with what stands around it left out; any other text as it is."""
    found = _DATA.search(text)
    try:
        data = json.loads(found[0]) if found else None
    except (ValueError, RecursionError):
        return text
    lines = [_line(shot) for shot in _shots(data)]
    return "\n".join(line for line in lines if line) or text


def _shots(data: Any) -> list[Any]:
    """The shots in what JSON gave: a list of them, or one, or either inside of `{"shots": ...}`."""
    for _ in range(4):
        if isinstance(data, dict) and not any(isinstance(data.get(name), str) for name in PROMPTS):
            data = next((value for value in data.values() if isinstance(value, list | dict)), None)
    if isinstance(data, list):
        return data
    return [] if data is None else [data]


def _line(shot: Any) -> str:
    if isinstance(shot, str):
        return " ".join(shot.split())
    if not isinstance(shot, dict):
        return ""
    values = {str(name).lower(): value for name, value in shot.items()}
    prompt = _first(values, PROMPTS, str)
    if not prompt:
        return ""
    kind, length = _first(values, KINDS, str), _first(values, LENGTHS, (int, float, str))
    pictures = _first(values, PICTURES, list)
    head = [kind or ""] if kind and len(kind.split()) == 1 else []
    head += [f"{str(length).strip().rstrip('s').strip()}s"] * (bool(head) and length is not None)
    head += [f"[{', '.join(map(str, pictures or ()))}]"] * (bool(head) and bool(pictures))
    prompt = " ".join(prompt.split())
    return f"{' '.join(head)}: {prompt}" if head else prompt


def _first(values: dict[str, Any], names: tuple[str, ...], kind: Any) -> Any:
    return next((values[name] for name in names if isinstance(values.get(name), kind)), None)
