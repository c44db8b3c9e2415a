"""What the nodes say in other languages: as much as in English, as the schemas say it, and shown on the page."""

import itertools
import re
from pathlib import Path

import pytest

from pack.dev import locales
from pack.dev.comfyui.server import Server
from pack.dev.samples import workflow_inputs

CHINESE = re.compile("[\u4e00-\u9fff]")
SAME_IN_CHINESE = {"VAE", "CLIP", "LoRA", "Latent"}
PAGES = sorted((workflow_inputs.ROOT / "web" / "docs").glob("*/*.md"))  # web/docs/<node>/<language>.md
UPDATE = "run `python dev/locales.py --write`, commit locales/en, and translate what it lists"
NODE = "SkyReelsReferenceToVideo"
KEEPS_PACKS = (1, 37)  # versions of the page that certainly do: 1.32 loses what packs say once it loads its own Chinese
SHOWN = """type => {
    const node = LiteGraph.createNode(type);
    app.graph.add(node);
    return {
        title: node.title,
        inputs: node.inputs.map(input => [input.name, input.label ?? input.localized_name]),
        outputs: node.outputs.map(output => [output.name, output.label ?? output.localized_name]),
        widgets: node.widgets.map(widget => [widget.name, widget.label]),
    };
}"""


@pytest.fixture(scope="module")
def english() -> locales.Texts:
    return locales.read(locales.ENGLISH)


@pytest.mark.server
def test_english_says_what_the_schemas_say(stocked_server: Server, english: locales.Texts):
    told = locales.differences(english, locales.schema_texts(stocked_server.object_info()))
    assert not told, f"{UPDATE}:\n" + "\n".join(told)


@pytest.mark.parametrize("language", locales.languages())
def test_every_language_says_as_much_as_english(english: locales.Texts, language: str):
    told = locales.problems(language, english, locales.read(language))
    assert not told, "\n".join(told)


def test_chinese_is_chinese():
    texts = locales.read("zh")
    assert {text for text in texts.values() if not CHINESE.search(text)} <= SAME_IN_CHINESE
    for key, text in texts.items():
        ending = "。" if key[-1] in ("description", "tooltip") else ""
        assert text.endswith(ending) and text.count("。。") == 0, text
        assert not re.search(r"[\u4e00-\u9fff][,.;:!?]", text), f"half-width sign after a Chinese one: {text}"


def test_one_word_for_one_name():
    """An input has the same name in Chinese on every node, but for those that mean something else there."""
    meanings = {"negative", "model", "audio", "script"}  # a conditioning or a text; the one that continues; shots
    english, chinese = locales.read("en"), locales.read("zh")
    words = sorted({(text, chinese[key]) for key, text in english.items() if key[-1] == "name"})
    for name, group in itertools.groupby(words, key=lambda pair: pair[0]):
        assert len(list(group)) == 1 or name in meanings, f"{name} has several names in Chinese"


def test_what_is_wrong_with_a_translation_is_told():
    key = "Node", "inputs", "shot", "tooltip"
    source = {key: "`cut 4s` takes umt5_xxl in models/loras, up to 0.5."}

    def told(text: str, **more: str) -> str:
        return "\n".join(locales.problems("zh", source, {key: text, **{(name,): word for name, word in more.items()}}))

    good = "`cut 4s` 用 models/loras 里的 umt5_xxl，最多 0.5，一共 1 个。"
    assert told(good) == ""
    assert "is missing" in told("")
    assert "is not in the English" in told(good, other="x")
    assert "is still English" in told(source[key])
    for name, other in [("`cut", "`切镜"), ("4s", "5s"), ("umt5_xxl", "t5"), ("models/loras", "loras"), ("0.5", "1.5")]:
        assert f"differs in {name}" in told(good.replace(name, other)), name
    assert "holds one of" in told(good + "{n}")


@pytest.mark.server
def test_comfyui_serves_every_language(stocked_server: Server):
    for page in PAGES:
        path = page.relative_to(workflow_inputs.ROOT / "web")
        answer = stocked_server._web.get(f"{stocked_server.url}/extensions/SkyReels-V3/{path.as_posix()}", timeout=30)
        assert answer.content == page.read_bytes(), path
    served = stocked_server.get("/i18n")
    for language in [locales.ENGLISH, *locales.languages()]:
        texts = served[language]["nodeDefs"]
        for (node_id, *path), text in locales.read(language).items():
            value = texts[node_id]
            for key in path:
                value = value[key]
            assert value == text


@pytest.mark.parametrize("language", locales.languages())
def test_every_node_has_a_help_page(language: str):
    english = {page.stem for page in (workflow_inputs.ROOT / "web" / "docs").glob("*.md")}
    assert {page.parent.name for page in PAGES if page.stem == language} == english


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_a_help_page_says_as_much_as_the_english_one(page: Path):
    """The same headings, tables and code; and the names that the node has in that language."""

    def form(text: str) -> tuple:
        lines = [line[:2] for line in text.splitlines() if line.startswith(("#", "|", "```"))]
        return lines, sorted(set(re.findall(r"```[^`]+```|`[^`]+`", text)))

    text = page.read_text(encoding="utf-8")
    assert form(text) == form(page.parent.with_suffix(".md").read_text(encoding="utf-8"))
    node_id, texts = page.parent.name, locales.read(page.stem)
    assert text.startswith(f"# {texts[node_id, 'display_name']}\n")
    for (node, *path), word in texts.items():
        if node == node_id and path[0] == "inputs" and path[-1] == "name" and f"`{path[1]}`" in text:
            assert f"`{path[1]}` {word}" in text


def test_the_page_speaks_chinese(stocked_server: Server, page_factory):
    texts = locales.read("zh")
    try:
        page = page_factory(stocked_server, settings={"Comfy.Locale": "zh"})
        version = tuple(map(int, page.tab.evaluate("() => window.__COMFYUI_FRONTEND_VERSION__").split(".")[:2]))
        shown = page.tab.evaluate(SHOWN, NODE)
        folder = workflow_inputs.ROOT / "test-artifacts"
        folder.mkdir(exist_ok=True)
        page.fit_view()
        page.screenshot(folder / "chinese.png")
    finally:
        stocked_server.post_settings({"Comfy.Locale": "en"})
    if version < KEEPS_PACKS and shown["title"] != texts[NODE, "display_name"]:
        texts = locales.read(locales.ENGLISH)
    assert shown["title"] == texts[NODE, "display_name"]
    for name, label in [*shown["inputs"], *shown["widgets"]]:
        assert label == texts[NODE, "inputs", name, "name"]
    for index, (_, label) in enumerate(shown["outputs"]):
        assert label == texts[NODE, "outputs", str(index), "name"]
