"""tools/batch.py: what it reads: tables, folders, fields of a workflow, takes."""

import json
from pathlib import Path

import pytest

from pack.dev.comfyui.server import Server
from pack.dev.samples import workflow_inputs
from pack.tools.batching.rows import BatchError, Field, Row, Template, read_rows, row_key, value_of
from pack.tools.batching.takes import takes_of


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def cells(path: Path) -> list[dict]:
    return [row.cells for row in read_rows(path)]


def test_tables_are_read_as_programs_write_them(tmp_path: Path):
    two = [{"prompt": "A cat, asleep.", "seed": "1"}, {"prompt": 'She says "hi";\nand goes.'}]
    comma = 'prompt,seed,# mine\n"A cat, asleep.",1,x\n\n"She says ""hi"";\nand goes.",,\n'
    assert cells(write(tmp_path / "a.csv", comma)) == two
    semicolon = 'prompt;seed\r\nA cat, asleep.;1\r\n"She says ""hi"";\nand goes.";\r\n'
    assert cells(write(tmp_path / "b.csv", "\ufeff" + semicolon)) == two
    assert cells(write(tmp_path / "c.csv", semicolon.replace(";", "\t").replace('hi""\t', 'hi"";').encode("utf-16")))
    rows = read_rows(write(tmp_path / "d.csv", "name,prompt\nshot 1/a,One\n,Two\n"))
    assert [row.name for row in rows] == ["shot_1_a", "002"]
    assert cells(write(tmp_path / "e.txt", "A cat, asleep.\n\nA dog.\n")) == [
        {"prompt": "A cat, asleep."},
        {"prompt": "A dog."},
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prompt\n", "has no rows"),
        ("prompt,prompt\na,b\n", "two columns of the same name"),
        ("prompt,seed\nA cat, asleep,1\n", "Row 1 of .* has 3 cells, but there are 2 columns"),
        (b"prompt\n\xe4\xf6", "is not UTF-8"),
    ],
)
def test_what_is_wrong_with_a_table_is_told(tmp_path: Path, text, words: str):
    with pytest.raises(BatchError, match=words):
        read_rows(write(tmp_path / "a.csv", text))


def test_a_folder_gives_a_row_for_each_name(tmp_path: Path):
    for name in ("shot10.png", "shot2.JPG", "shot2.wav", "notes.md", ".hidden.png"):
        write(tmp_path / name, "x")
    write(tmp_path / "shot2.txt", "She waves.\n")
    rows = read_rows(tmp_path)
    assert [row.name for row in rows] == ["shot2", "shot10"]
    assert rows[0].cells == {"image": "shot2.JPG", "audio": "shot2.wav", "prompt": "She waves."}
    write(tmp_path / "shot10.webp", "x")
    with pytest.raises(BatchError, match="two files for the image of shot10"):
        read_rows(tmp_path)


def field(kind, **options) -> Field:
    return Field("1", "it", "Title", "Type", kind, options)


def test_text_becomes_what_a_field_holds():
    assert value_of(field("INT", min=0, max=9), "7") == 7
    assert value_of(field("FLOAT"), "0,5") == value_of(field("FLOAT"), "0.5") == 0.5
    assert value_of(field("BOOLEAN"), "No") is False
    assert value_of(field(["a", 5]), "5") == value_of(field("COMBO", options=[5]), "5") == 5
    assert value_of(field("STRING", multiline=True), r"one\ntwo") == "one\ntwo"
    for kind, options, text, words in (
        ("INT", {}, "7.5", "no whole number"),
        ("FLOAT", {}, "inf", "no number"),
        ("INT", {"max": 9}, "10", "must be between 10 and 9|between .* and 9"),
        ("BOOLEAN", {}, "maybe", "neither true nor false"),
        (["a", "b"], {}, "c", "not among the choices of it: a, b"),
    ):
        with pytest.raises(BatchError, match=words):
            value_of(field(kind, **options), text)


def test_a_row_is_the_same_whatever_its_results_are_called(tmp_path: Path):
    def prompt(prefix: str, seed: int) -> dict:
        return {"1": {"class_type": "Save", "inputs": {"filename_prefix": prefix, "seed": seed}}}

    file = write(tmp_path / "a.png", "x")
    assert row_key(prompt("a", 1), [file]) == row_key(prompt("b", 1), [file])
    assert row_key(prompt("a", 1), [file]) != row_key(prompt("a", 2), [file])
    before = row_key(prompt("a", 1), [file])
    assert row_key(prompt("a", 1), [write(file, "other")]) != before


@pytest.mark.server
def test_columns_find_their_fields(stocked_server: Server):
    info = stocked_server.object_info()
    templates = {
        file.stem: Template(json.loads(file.read_text(encoding="utf-8")), info)
        for file in workflow_inputs.WORKFLOWS.glob("*.json")
    }
    for name, prompt, seed in (
        ("reference_to_video", "CLIPTextEncode.text", "RandomNoise.noise_seed"),
        ("video_extension", "SkyReelsExtendVideo.script", "SkyReelsExtendVideo.seed"),
        ("talking_avatar", "SkyReelsTalkingAvatar.prompt", "SkyReelsTalkingAvatar.seed"),
    ):
        found = [templates[name].field(column).names[1] for column in ("prompt", "seed")]
        assert found == [prompt, seed]
    template = templates["reference_to_video"]
    assert template.field("load image: reference 2.IMAGE").node == "7" == template.field("7.image").node
    with pytest.raises(BatchError, match=r"2 places in the workflow: name one of Load Image: reference 1\.image, Load"):
        template.field("image")
    with pytest.raises(BatchError, match=r"no place in the workflow; it has .*text, "):
        template.field("colour")


def test_takes_have_seeds_of_their_own():
    node = {"class_type": "Noise", "inputs": {"noise_seed": 5, "filename_prefix": "a"}}
    inputs = {"noise_seed": ["INT", {"min": 0, "max": 6}], "filename_prefix": ["STRING", {}]}
    template = Template({"1": node}, {"Noise": {"input": {"required": inputs}}})
    row = Row(1, "cat", {})
    takes = takes_of(row, {}, template, 3)
    assert [one.name for one, _ in takes] == ["cat_take_1", "cat_take_2", "cat_take_3"]
    assert [values["1", "noise_seed"] for _, values in takes] == [5, 6, 0]
    assert takes_of(row, {("1", "noise_seed"): 2}, template, 2)[1][1]["1", "noise_seed"] == 3
    assert takes_of(row, {}, template, 1) == [(row, {})]
    # Its key is that of the row alone: a batch of several takes finds what one of a single take has made.
    keys = [row_key(template.filled(values, one.name)[0], []) for one, values in [(row, {}), *takes]]
    assert keys[0] == keys[1] and len(set(keys)) == 3
    with pytest.raises(BatchError, match="Takes differ by their seeds"):
        takes_of(row, {}, Template({"1": {**node, "inputs": {}}}, {"Noise": {"input": {}}}), 2)
