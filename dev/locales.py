"""What the nodes say in other languages, as ComfyUI's page reads it: locales/<language>/nodeDefs.json.

    .venv/bin/python dev/locales.py            what is missing, out of date or wrong
    .venv/bin/python dev/locales.py --write    brings the English up to date with nodes/*.py, and the rest with that

English is never edited by hand: it is what the nodes' schemas say. For another language copy locales/en to the code
that ComfyUI has for it (ja, ko, fr, zh-TW ...), translate, and run this until it has nothing to tell.

The page knows texts for names, tooltips and descriptions. It has none for the choices of a combo: they stay English, so
tooltips name them as they are. Of each text the numbers, the names of files and choices in backticks stay too.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))  # for `pack`

ROOT = Path(__file__).resolve().parent.parent
LOCALES = ROOT / "locales"
FILE = "nodeDefs.json"  # main, commands and settings would lie beside it; the pack has none of these
ENGLISH = "en"
PACK = "custom_nodes.SkyReels-V3"  # as the server of tests and tools calls this pack
KEPT = re.compile(r"`\w+|\w+(?:[/.]\w+)+|\w*[\d_]\w*", re.ASCII)  # choices, paths, numbers and file names
MARKUP = set("{}@|")  # placeholders, links and plurals to the page: it would not show them as they are

Texts = dict[tuple[str, ...], str]  # such as ("SkyReelsLora", "inputs", "lora", "name") -> "lora"


def languages() -> list[str]:
    """The codes of all languages but English."""
    return sorted(folder.name for folder in LOCALES.iterdir() if folder.is_dir() and folder.name != ENGLISH)


def schema_texts(info: dict) -> Texts:
    """The English of this pack's nodes, from a server's /object_info."""
    texts = {}

    def add(*key: str, **words: str | None) -> None:
        texts.update({(*key, name): text for name, text in words.items() if text})

    for node_id, node in info.items():
        if node["python_module"] != PACK:
            continue
        add(node_id, display_name=node["display_name"], description=node["description"])
        for part in ("required", "optional"):
            for name, (_, options) in (node["input"].get(part) or {}).items():
                add(node_id, "inputs", name.replace(".", "_"), name=name, tooltip=options.get("tooltip"))
        for index, (name, tooltip) in enumerate(zip(node["output_name"], node["output_tooltips"])):
            add(node_id, "outputs", str(index), name=name, tooltip=tooltip)
    return texts


def read(language: str) -> Texts:
    """The texts of a language's file, in its order; none if there is no file yet."""

    def walk(tree: dict, *path: str):
        for key, value in tree.items():
            if isinstance(value, dict):
                yield from walk(value, *path, key)
            else:
                yield (*path, key), value

    file = LOCALES / language / FILE
    return dict(walk(json.loads(file.read_text(encoding="utf-8")))) if file.exists() else {}


def write(language: str, texts: Texts) -> None:
    """The file of a language."""
    tree = {}
    for (*path, last), text in texts.items():
        branch = tree
        for key in path:
            branch = branch.setdefault(key, {})
        branch[last] = text
    file = LOCALES / language / FILE
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(tree, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def differences(old: Texts, new: Texts) -> list[str]:
    """How the English of the file differs from that of the schemas."""
    return [
        f"en {'.'.join(key)}: {old.get(key)!r} is now {new.get(key)!r}"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]


def problems(language: str, english: Texts, texts: Texts) -> list[str]:
    """What a translation lacks or has wrong, one line each."""
    found = [f"{'.'.join(key)} is not in the English" for key in texts if key not in english]
    for key, source in english.items():
        where, text = ".".join(key), texts.get(key)
        if not text:
            found.append(f"{where} is missing: {source!r}")
            continue
        if key[-1] != "name":  # names such as codec may be the same words elsewhere
            before, after = set(KEPT.findall(source)), set(KEPT.findall(text))
            changed = sorted(before - after) + sorted(name for name in after - before if not name.isdigit())
            if changed:
                found.append(f"{where} differs in {', '.join(changed)}: {source!r}, {text!r}")
            if text == source:
                found.append(f"{where} is still English: {source!r}")
        if MARKUP & set(source + text):
            found.append(f"{where} holds one of {' '.join(sorted(MARKUP))}, which the page does not show")
    return [f"{language} {problem}" for problem in found]


def main() -> int:
    """The command line. Returns 1 if there is something to do."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--write",
        action="store_true",
        help="write the English; of other languages drop, and print, what translates a text that changed",
    )
    arguments = parser.parse_args()
    from pack.dev.comfyui.server import Server

    with Server() as server:
        new = schema_texts(server.object_info())
    old = read(ENGLISH)
    told = differences(old, new)
    if arguments.write:
        write(ENGLISH, new)
    for language in languages():
        texts = read(language)
        if arguments.write:
            same = {key: texts[key] for key in new if key in texts and new[key] == old.get(key, new[key])}
            told += [f"{language} {'.'.join(key)} was {texts[key]!r}" for key in texts if key not in same]
            write(language, same)
            texts = same
        told += problems(language, new, texts)
    print("\n".join(told) or "Every language says what the nodes say.")
    return bool(told)


if __name__ == "__main__":
    raise SystemExit(main())
