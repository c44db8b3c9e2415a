"""README.md and CONTRIBUTING.md: what they link to and name is there, and every node can be found."""

import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
FOLDERS = [path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")]
MADE = ("demo", "test-artifacts", "build")  # folders that the commands make
PLACEHOLDER = re.compile(r"NAME|NODE_ID|LANGUAGE|NODE")
SHORTEST = 6  # letters of a quotation's part that say something
MOST_BYTES = 2_000_000  # of all pictures

NUMBER = r"(\d+(?:\.\d+)?)"
# How help pages tell the values that inputs have at first, in either language.
AT_FIRST = re.compile(
    rf"{NUMBER}(?:, as it is)? by default|made for {NUMBER}|distilled: {NUMBER} and {NUMBER}"
    rf"|默认的? {NUMBER}|以 {NUMBER} 秒?为准|蒸馏时一致：{NUMBER} 和 {NUMBER}"
)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def anchor(heading: str) -> str:
    """The name by which GitHub links to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def schemas() -> list[dict[str, ast.expr]]:
    """What each node hands to `versions.schema`, as keyword -> expression."""
    calls = (
        node
        for file in sorted((ROOT / "nodes").rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "versions.schema"
    )
    return [{keyword.arg: keyword.value for keyword in call.keywords} for call in calls]


def literals() -> str:
    """Every text in the pack's code, one after the other, its values left out."""
    found = []
    for folder in ("nodes", "skyreels_v3", "model_loaders", "formats", "kernels", "distributed"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    found.append("\0".join(str(part.value) for part in node.values if isinstance(part, ast.Constant)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join(found)


@each_page
def test_links_and_pictures_are_there(page: Path):
    text = page.read_text(encoding="utf-8")
    headings = {anchor(line.lstrip("#")) for line in text.splitlines() if line.startswith("#")}
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'<img src="([^"]+)"', text)
    for target in targets:
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif not target.startswith("https://"):
            assert (ROOT / target).is_file(), target
    for picture in re.findall(r"<img [^>]+>", text):
        assert re.search(r'alt="[^"]{10,}"', picture), picture
    assert all(len(words) > 10 for words in re.findall(r"!\[([^]]*)\]", text))


@each_page
def test_files_that_are_named_are_there(page: Path):
    named = re.findall(r"(?<![\w/.-])((?:[\w.-]+/)+[\w.-]*)", page.read_text(encoding="utf-8"))
    ours = [
        name
        for name in named
        if name.split("/")[0] in FOLDERS and name.split("/")[0] not in MADE and not PLACEHOLDER.search(name)
    ]
    assert len(ours) > 3
    assert [name for name in ours if not (ROOT / name.rstrip(".")).exists()] == []


def test_every_node_has_its_line_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = dict(re.findall(r"^\| \[([^]]+)\]\(web/docs/(\w+)\.md\) \| .{15,} \|$", text, re.MULTILINE))
    assert lines == {ast.literal_eval(node["display_name"]): ast.literal_eval(node["node_id"]) for node in schemas()}


def test_every_workflow_is_in_the_readme():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [file.stem for file in ROOT.glob("workflows/*.json") if f"`{file.stem}`" not in text] == []


def test_every_node_is_found_by_other_words():
    # Releases before 0.11 do not tell search words, so they are read from the code.
    for node in schemas():
        words = ast.literal_eval(node["search_aliases"])
        assert len(words) == len(set(words)) >= 3, ast.unparse(node["node_id"])


@pytest.mark.parametrize("page", ["{}.md", "{}/zh.md"])
def test_defaults_that_help_pages_tell_are_those_of_the_nodes(page: str):
    told = 0
    for name, node in json.loads((ROOT / "tests/data/snapshots/nodes.json").read_text(encoding="utf-8")).items():
        defaults = {one["name"]: one.get("default") for kind in node.values() for one in kind if "type" in one}
        for line in (ROOT / "web/docs" / page.format(name)).read_text(encoding="utf-8").splitlines():
            numbers = [float(number) for found in AT_FIRST.finditer(line) for number in found.groups() if number]
            inputs = [word for word in re.findall(r"`(\w+)`", line) if word in defaults][: len(numbers)]
            assert numbers == [defaults[one] for one in inputs], (name, line)
            told += len(numbers)
    assert told == 15


def test_sentences_that_are_quoted_are_said():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    cells = re.findall(
        r"^\| ([^|]+) \|", text[text.index("## Troubleshooting") : text.index("## Limits")], re.MULTILINE
    )
    quotations = [quotation for cell in cells for quotation in re.findall(r'"([^"]+)"', cell)]
    said = literals()
    assert len(quotations) > 10
    for quotation in quotations:
        for part in re.split(r"\.\.\.|\d+(?:\.\d+)?", quotation):
            assert len(part.strip()) < SHORTEST or part.strip() in said, f"nothing says {part.strip()!r}"


def test_pictures_stay_small():
    assert sum(file.stat().st_size for file in (ROOT / "docs").iterdir()) < MOST_BYTES
