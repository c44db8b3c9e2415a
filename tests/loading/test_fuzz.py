"""Model files with some thousand kinds of damage: each opens or is refused in one clear sentence, fast and small.

`make bench ARGS="--only fuzz --fuzz-minutes 60"` goes on with these for an hour.
"""

import warnings
from random import Random

import gguf
import pytest

from pack.dev.samples.damage import damaged, damaged_gguf, damaged_json, damaged_safetensors, gguf_fields
from pack.dev.samples.damaged_models import Fuzz, Image, gguf_layouts, safetensors_layouts, shards
from pack.model_loaders.checkpoints.checkpoint import open_checkpoint
from pack.model_loaders.files.header import read_header
from pack.skyreels_v3.errors import InputError

pytestmark = pytest.mark.workshop

MUTANTS = 600  # of each target
# Lines that refuse something: fewer, and the mutants do not reach what lies behind the first checks.
PLACES = {"safetensors": 9, "safetensors weights": 22, "shards": 17, "gguf": 13, "gguf weights": 22}


@pytest.mark.parametrize("target", PLACES)
def test_damaged_files_open_or_are_refused_in_a_sentence(tmp_path, target):
    with Fuzz(tmp_path) as fuzz:
        assert list(fuzz.targets) == list(PLACES)
        results = list(fuzz.run(target, range(MUTANTS)))
    failed = [f"mutant {result.number}: {result.problem}" for result in results if result.outcome == "failed"]
    assert not failed, "\n".join(failed[:5])
    assert {result.outcome for result in results} == {"opened", "refused"}
    assert len({result.place for result in results if result.place}) >= PLACES[target]


def test_what_opens_as_gguf_is_what_the_gguf_package_reads(tmp_path):
    path, opened = tmp_path / "x.gguf", 0
    for number in range(300):
        random = Random(number)
        image = random.choice(gguf_layouts()).image()
        Image(damaged_gguf(image.head, random), image.zeros).write(path)
        try:
            header = read_header(path)
        except InputError:
            continue
        opened += 1
        places = {t.name: (t.tensor_type.name, t.data_offset, t.n_bytes) for t in gguf.GGUFReader(path).tensors}
        assert places == {
            key: (info.dtype, header.data_start + info.start, info.end - info.start)
            for key, info in header.tensors.items()
        }
    assert opened > 15


def test_what_is_damaged_was_whole(tmp_path):
    for layout in (*safetensors_layouts(), *gguf_layouts()):
        layout.image().write(tmp_path / "x")
        assert set(read_header(tmp_path / "x").tensors) == set(layout.shapes)
        open_checkpoint(tmp_path / "x")
    (tmp_path / "R2V").mkdir()
    for name, image in shards().items():
        image.write(tmp_path / "R2V" / name)
    assert len(open_checkpoint(tmp_path / "R2V").paths) == 3


def test_the_same_seed_makes_the_same_damage():
    safetensors, gguf = safetensors_layouts()[0].image().head, gguf_layouts()[0].image().head
    text = safetensors[8 : 8 + int.from_bytes(safetensors[:8], "little")]
    for damage, content in (
        (damaged, gguf),
        (damaged_json, text),
        (damaged_safetensors, safetensors),
        (damaged_gguf, gguf),
    ):
        one, other = ([damage(content, Random(seed)) for seed in range(50)] for _ in range(2))
        assert one == other and len(set(one)) > 40


def test_the_fields_of_a_gguf_header_lie_side_by_side():
    image = gguf_layouts()[3].image()
    end = 4
    for _, place, size in gguf_fields(image.head):
        assert place == end
        end += size
    assert 0 <= len(image.head) - end < 64


def test_a_reader_that_fails_is_found_out(tmp_path, monkeypatch):
    """What counts as a failure: another exception, a warning, two sentences, a long one, memory, time."""

    def refuse(text):
        raise InputError(text)

    bad = {
        "KeyError": lambda path: {}["x"],
        "UserWarning": lambda path: warnings.warn("odd", stacklevel=1),
        "not one sentence": lambda path: refuse("It is bad. Try again."),
        "signs": lambda path: refuse("x" * 500 + "."),
        "bytes of memory": lambda path: bytes(20_000_000),
        "took 5.0 s": lambda path: clock.append(5.0),
    }
    clock = [0.0]
    monkeypatch.setattr("pack.dev.samples.damaged_models.time.process_time", lambda: sum(clock))
    for words, reader in bad.items():
        monkeypatch.setattr("pack.dev.samples.damaged_models.read_header", reader)
        with Fuzz(tmp_path) as fuzz:
            (result,) = fuzz.run("gguf", [0])
        assert result.outcome == "failed" and words in result.problem
