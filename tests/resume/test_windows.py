"""Windows of a long job: what is done, what it goes on from, and the video that they become together."""

import os
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch

from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.resume.folder import RunFolder
from pack.skyreels_v3.resume.lead import write_pieces
from pack.skyreels_v3.resume.windows import LongRun
from pack.skyreels_v3.video.join import join
from pack.skyreels_v3.video.sources.file import FileSource
from pack.skyreels_v3.video.sources.source import frames
from pack.skyreels_v3.video.writer import VideoWriter
from pack.tests.support.video_clips import clip, numbered, numbers_of

WIDTH, HEIGHT = 160, 64
KEYS = ["one", "two", "three", "four"]


@pytest.fixture
def folder(tmp_path):
    with RunFolder(tmp_path / "jobs", "job") as opened:
        yield opened


def job_of(folder, made_rate=24, file_rate=None, codec="lossless"):
    return LongRun(folder, WIDTH, HEIGHT, made_rate, file_rate, codec)


def window(count, start=0):
    """uint8 [count, H, W, 3] of frames that carry their numbers."""
    return torch.stack([torch.from_numpy(numbered(start + index)) for index in range(count)])


def state(value):
    return {"frames": torch.full((1, 3, 2, 4, 4), value, dtype=torch.float16), "anchor": torch.tensor([value])}


def add(job, key, count=3, before=0):
    add_window(job, key, window(count, before), state(float(KEYS.index(key))), before)


def add_window(job, key, frames, given, before):
    """A window whose frames come in pieces of two."""
    with job.window(key, len(frames), before) as made:
        for piece in frames.split(2):
            made.write(piece)
        made.state = given


def shown(path):
    return numbers_of(frames(FileSource(path)))


def test_what_is_done_is_counted_from_the_first_window(folder):
    job = job_of(folder)
    assert job.finished(KEYS) == 0
    add(job, "one")
    add(job, "three", before=6)
    assert job.finished(KEYS) == 1, "three does not follow from what is missing"
    add(job, "two", before=3)
    assert job.finished(KEYS) == 3
    assert job.finished(["one", "changed", "three"]) == 1
    assert job.finished([]) == 0


def test_a_state_comes_back_to_the_bit(folder):
    job = job_of(folder)
    given = {"frames": torch.randn(1, 3, 5, 8, 8).half(), "anchor": torch.arange(6, dtype=torch.uint8)}
    add_window(job, "one", window(3), given, 0)
    back = job.state("one")
    assert back.keys() == given.keys()
    assert all(torch.equal(back[name], given[name]) and back[name].dtype == given[name].dtype for name in given)


def test_a_job_goes_on_from_the_last_state_that_is_kept(folder):
    job = job_of(folder)
    for index, key in enumerate(KEYS[:3]):
        add(job, key, before=3 * index)
    path = folder.path("two.safetensors")
    job.drop_state("two")
    assert not path.exists() and folder.done("two")
    job.drop_state("two")  # nothing is left to drop
    assert job.finished(KEYS) == 3, "three has its state"
    assert job.finished(["one", "two", "changed"]) == 1, "two has none, one has"
    job.drop_state("one")
    assert job.finished(["one", "two", "changed"]) == 0


def test_a_shortened_job_has_a_state_to_end_with(folder):
    """15 s become 10 s: what was the middle of a line is its end, and the end's state is asked for."""
    job = job_of(folder)
    for index, key in enumerate(KEYS[:3]):
        add(job, key, before=3 * index)
    job.drop_state("one")
    job.drop_state("two")
    assert job.finished(["one", "two", "three"]) == 3
    assert job.finished(["one", "two"]) == 0


def test_windows_that_are_made_again_replace_the_old_ones(folder):
    """A damaged window in the middle: those behind it are made again although they are done."""
    job = job_of(folder)
    for index, key in enumerate(KEYS[:3]):
        add(job, key, before=3 * index)
    folder.path("two.mp4").write_bytes(b"")
    folder.close()
    with RunFolder(folder.folder.parent, "job") as again:
        job = job_of(again)
        assert job.finished(KEYS) == 1
        add(job, "two", before=3)
        add_window(job, "three", window(3, 6), state(9.0), 6)
        assert job.finished(KEYS) == 3
        assert job.state("three")["anchor"].item() == 9
        out = again.folder.parent / "out.mp4"
        assert job.join([], KEYS, out) == 9
        assert shown(out) == list(range(9))


def test_a_window_killed_before_its_commit_is_not_done(folder):
    job = job_of(folder)
    add(job, "one")
    commit, folder.commit = folder.commit, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        add(job, "two", before=3)
    folder.commit = commit
    folder.close()
    with RunFolder(folder.folder.parent, "job") as again:
        assert job_of(again).finished(KEYS) == 1
        assert sorted(os.listdir(again.folder)) == ["lock", "manifest.json", "one.mp4", "one.safetensors"]


@pytest.mark.parametrize("rate", [Fraction(24), Fraction(30000, 1001), Fraction(60), Fraction(5), Fraction(1)])
def test_windows_at_other_rates_are_the_whole_at_that_rate(folder, tmp_path, rate):
    """Windows of 1 to 30 frames; at low rates some have no frame at all."""
    job, whole = job_of(folder, file_rate=rate), LongRun(folder, WIDTH, HEIGHT, 24, rate, "lossless")
    counts, before = [1, 2, 30, 3], 0
    for key, count in zip(KEYS, counts):
        add(job, key, count, before)
        before += count
    total = job.join([], KEYS, tmp_path / "parts.mp4")
    add_window(whole, "whole", window(before), state(0.0), 0)
    assert whole.join([], ["whole"], tmp_path / "whole.mp4") == total
    assert shown(tmp_path / "parts.mp4") == shown(tmp_path / "whole.mp4")


def test_a_window_without_a_frame_is_done_and_has_no_piece(folder, tmp_path):
    job = job_of(folder, file_rate=1)
    add(job, "one", 6)
    assert folder.info("one") == {"frames": 0, "state": True}
    assert job.finished(["one"]) == 1
    assert list(job.pieces(["one"])) == []
    with pytest.raises(InputError, match="no pieces"):
        job.join([], ["one"], tmp_path / "out.mp4")
    add(job, "two", 24, before=6)
    job.drop_state("one")
    assert job.finished(["one", "two"]) == 2
    assert list(job.pieces(["one", "two"])) == [folder.path("two.mp4")]
    assert job.join([], ["one", "two"], tmp_path / "out.mp4") == 1


def test_the_lead_and_the_windows_become_one_video_to_the_bit(folder, tmp_path):
    job = job_of(folder)
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (9, HEIGHT, WIDTH, 3), dtype=np.uint8))
    with VideoWriter(tmp_path / "lead.mp4", WIDTH, HEIGHT, 24, "lossless") as writer:
        writer.write(noise[:4])
    add_window(job, "one", noise[4:6], state(0.0), 0)
    add_window(job, "two", noise[6:], state(1.0), 2)
    assert job.join([tmp_path / "lead.mp4"], ["one", "two"], tmp_path / "out.mp4") == 9
    source = FileSource(tmp_path / "out.mp4")
    assert source.info.frame_rate == 24
    assert torch.equal(torch.stack([torch.from_numpy(frame) for frame in frames(source)]), noise)
    assert job.join([], ["one", "missing"], tmp_path / "new.mp4") == 2, "what is done, without the lead"


class Stop(Exception):
    pass


def test_a_lead_is_written_in_pieces_that_a_stop_keeps(tmp_path):
    """52 frames in pieces of 20; read anew from where it stopped."""
    source, read = FileSource(clip(tmp_path / "a.mp4", 52)), []

    def pieces(folder, stop_at=99):
        def fitted(first):
            for number, pixels in enumerate(frames(source, 24, first), first):
                read.append(number)
                yield pixels

        def counted(count):
            if count == stop_at:
                raise Stop

        return write_pieces(folder, 20, fitted, lambda path: VideoWriter(path, WIDTH, HEIGHT, 24), counted, int)

    with RunFolder(tmp_path / "sources", "source") as folder, pytest.raises(Stop):
        pieces(folder, 47)
    with RunFolder(tmp_path / "sources", "source") as folder:
        assert len(folder.parts) == 2 and not folder.finished
        read.clear()
        paths = pieces(folder)
        assert read == list(range(40, 52)) and [len(shown(path)) for path in paths] == [20, 20, 12]
        assert join(paths, tmp_path / "out.mp4", 24) == 52
        assert shown(tmp_path / "out.mp4") == list(range(52))
        read.clear()
        assert pieces(folder) == paths and read == [], "taken over"
    paths[1].write_bytes(b"damaged")
    with RunFolder(tmp_path / "sources", "source") as folder:
        assert pieces(folder) == paths and read == list(range(20, 52))
        assert shown(paths[1]) == list(range(20, 40))


def test_a_stop_at_the_very_end_of_a_lead_adds_nothing(tmp_path):
    def pieces(folder):
        return write_pieces(folder, 20, fitted, lambda path: VideoWriter(path, WIDTH, HEIGHT, 24), id, int)

    source = FileSource(clip(tmp_path / "a.mp4", 40))
    with RunFolder(tmp_path / "sources", "source") as folder:
        fitted = partial(frames, source, 24)
        paths = pieces(folder)
        folder.commit("piece-00001", ["piece-00001.mp4"], folder.info("piece-00001"))  # and killed before the note
        assert not folder.finished
        assert pieces(folder) == paths and len(paths) == 2 and folder.finished


LINK = {
    "1": {"class_type": "LoadVideo", "inputs": {"file": "clip.mp4"}},
    "2": {"class_type": "SkyReelsExtendVideo", "inputs": {"source": ["1", 0], "script": "continue 5s: On.", "seed": 1}},
    "3": {"class_type": "SaveVideo", "inputs": {"video": ["2", 0]}},
}


def changed(key, **inputs):
    return {**LINK, key: {**LINK[key], "inputs": {**LINK[key]["inputs"], **inputs}}}


@pytest.fixture
def job_module(pack_nodes):
    return pack_nodes.module("nodes.runs.identity")


def test_inputs_follow_from_what_nodes_do(job_module):
    def key(graph, node="2"):
        return job_module.upstream(graph, node, ["source"])

    same = key(LINK)
    assert same.keys() == {"source"} and len(same["source"]) == 32
    assert key(dict(reversed(LINK.items()))) == same
    assert key(changed("3", filename_prefix="other")) == same, "not from what comes behind it"
    assert key(changed("2", seed=2)) == same, "nor from the node's other inputs"
    assert key(changed("1", **{"video-preview": "state of the page"})) == same, "nor from what is no input"
    assert key(changed("1", file="other.mp4")) != same
    assert key(changed("2", source=["1", 1])) != same
    pasted = {"7:1": LINK["1"], "7:2": {**LINK["2"], "inputs": {**LINK["2"]["inputs"], "source": ["7:1", 0]}}}
    assert key(pasted, "7:2") == same, "nor from ids"


def test_two_copies_of_a_loader_are_one(job_module):
    one = {"class_type": "A", "inputs": {"a": ["1", 0], "b": ["1", 0]}}
    two = {"class_type": "A", "inputs": {"a": ["1", 0], "b": ["3", 0]}}
    keys = [job_module.upstream({"1": LINK["1"], "3": LINK["1"], "2": node}, "2", "ab") for node in (one, two)]
    assert keys[0] == keys[1] and keys[0]["a"] == keys[0]["b"]


def test_graphs_that_are_odd(job_module):
    assert job_module.upstream(None, "1", ["a"]) == job_module.upstream({}, None, ["a"]) == {"a": ""}
    circle = {"1": {"class_type": "A", "inputs": {"a": ["2", 0]}}, "2": {"class_type": "B", "inputs": {"b": ["1", 0]}}}
    assert len(job_module.upstream(circle, "1", ["a"])["a"]) == 32
    pair = {"1": {"class_type": "A", "inputs": {"size": [96, 64], "gone": ["9", 0]}}}
    keys = job_module.upstream(pair, "1", ["size", "gone", "not given"])
    assert len(set(keys.values())) == 3 and keys["not given"] == ""


def test_stamps_of_files_change_with_them(job_module, tmp_path):
    paths = [tmp_path / name for name in ("b.safetensors", "a.safetensors")]
    for path in paths:
        path.write_bytes(b"1234")
    stamps = job_module.file_stamps(paths)
    assert [stamp[:2] for stamp in stamps] == [("a.safetensors", 4), ("b.safetensors", 4)]
    assert job_module.file_stamps(paths[::-1]) == stamps
    once = job_module.file_stamps(paths, by_time=True)
    os.utime(paths[0], ns=(1, 1))
    assert job_module.file_stamps(paths) == stamps, "as a copy on another machine"
    touched = job_module.file_stamps(paths, by_time=True)
    assert touched[0] == once[0] and touched[1] != once[1]
    paths[1].write_bytes(b"4321")
    assert job_module.file_stamps(paths)[0] != stamps[0]
    paths[1].write_bytes(b"12345")
    assert job_module.file_stamps(paths)[0] != stamps[0]
