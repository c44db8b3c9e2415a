"""The glossary of CONTRIBUTING: names that gave way to another word do not come back."""

import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
AREAS = ("skyreels_v3", "nodes", "model_loaders", "formats", "kernels", "distributed")


def glossary() -> Iterator[tuple[str, set[str]]]:
    """(word, the names that it replaces) of every row."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split("## Words\n")[1].split("\n## ")[0]
    for row in section.splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        if len(cells) == 3 and cells[0] not in ("word", "---"):
            yield cells[0], set(re.findall(r"`(\w+)`", cells[2]))


GLOSSARY = dict(glossary())


def names(file: Path) -> set[str]:
    """Every identifier in a module, its own name included."""
    with tokenize.open(file) as source:
        found = {token.string for token in tokenize.generate_tokens(source.readline) if token.type == tokenize.NAME}
    return found | {file.stem}


def test_the_glossary_has_its_words():
    assert {"job", "run", "plan", "budget", "window", "roll", "piece", "segment", "chunk", "host"} <= GLOSSARY.keys()


@pytest.mark.parametrize("area", AREAS)
def test_replaced_names_do_not_come_back(area):
    replaced = set().union(*GLOSSARY.values())
    found = {str(file.relative_to(ROOT)): names(file) & replaced for file in (ROOT / area).rglob("*.py")}
    assert not {file: back for file, back in found.items() if back}
