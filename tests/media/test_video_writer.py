"""Frames into files and files into one: exact pixels, exact times, sound in sync, nothing half-written."""

import io
import os
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.video.join import fits, join
from pack.skyreels_v3.video.rates import frames_at, resample_indices
from pack.skyreels_v3.video.sources.file import FileSource
from pack.skyreels_v3.video.sources.source import Sound, frames
from pack.skyreels_v3.video.writer import VideoWriter
from pack.tests.support.video_clips import clip, numbered, numbers_of, probe, turn

RATE = Fraction(30000, 1001)


def decoded(path: Path) -> np.ndarray:
    return np.stack(list(frames(FileSource(path))))


def pieces(folder: Path, lengths=(1, 2, 3, 40, 7), rate=RATE, codec="h264") -> list[Path]:
    paths, number = [], 0
    for index, length in enumerate(lengths):
        paths.append(folder / f"piece{index}.mp4")
        with VideoWriter(paths[-1], 160, 64, rate, codec) as writer:
            for _ in range(length):
                writer.write(numbered(number))
                number += 1
    return paths


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 48, 64, 3), dtype=np.uint8)


def test_lossless_gives_the_pixels_back(tmp_path, noise):
    with VideoWriter(tmp_path / "a.mp4", 64, 48, 24, "lossless") as writer:
        writer.write(torch.from_numpy(noise[:4]).float() / 255)
        writer.write(noise[4:])
    assert np.array_equal(decoded(tmp_path / "a.mp4"), noise)
    with av.open(str(tmp_path / "a.mp4")) as container:  # as ComfyUI's own loader reads
        assert np.array_equal([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)], noise)


@pytest.mark.parametrize("codec", ["h264", "lossless"])
def test_the_same_frames_give_the_same_file(tmp_path, noise, codec):
    for name in ("a.mp4", "b.mp4"):
        with VideoWriter(tmp_path / name, 64, 48, 24, codec) as writer:
            writer.write(noise)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "b.mp4"]


def test_h264_keeps_colours_and_says_what_they_are(tmp_path):
    ramp = np.linspace(0, 255, 96, dtype=np.uint8)
    picture = np.stack([ramp, ramp[::-1], np.full_like(ramp, 90)], axis=-1)[None].repeat(64, axis=0)
    with VideoWriter(tmp_path / "a.mp4", 96, 64, RATE) as writer:
        writer.write(np.stack([picture] * 5))
    assert np.abs(decoded(tmp_path / "a.mp4").astype(int) - picture).max() <= 8
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert stream.average_rate == RATE and context.pix_fmt == "yuv420p"
        assert (context.colorspace, context.color_range, context.color_primaries, context.color_trc) == (1, 1, 1, 1)


def test_colours_do_not_walk_over_generations(tmp_path):
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (4, 6, 3)).repeat(16, axis=0).repeat(16, axis=1).astype(np.uint8)
    one = picture
    for _ in range(6):
        with VideoWriter(tmp_path / "a.mp4", 96, 64, 24) as writer:
            writer.write(one)
        one = decoded(tmp_path / "a.mp4")[0]
    middles = (slice(8, None, 16), slice(8, None, 16))
    assert np.abs(one[middles].astype(int) - picture[middles]).max() <= 10


@pytest.mark.parametrize("codec", ["h264", "lossless"])
@pytest.mark.parametrize("rate", [Fraction(24), Fraction(24000, 1001), Fraction(2731, 100)])
def test_pieces_of_any_length_become_one(tmp_path, codec, rate):
    paths = pieces(tmp_path, rate=rate, codec=codec)
    told = []
    assert join(paths, tmp_path / "all.mp4", rate, on_frame=told.append) == 53
    assert told == list(range(1, 54))
    info = probe(FileSource(tmp_path / "all.mp4"))
    assert (info.frames, info.frame_rate, info.variable, info.has_audio) == (53, rate, False, False)
    assert numbers_of(decoded(tmp_path / "all.mp4")) == list(range(53))
    if codec == "lossless":
        assert np.array_equal(decoded(tmp_path / "all.mp4"), [numbered(number) for number in range(53)])


@pytest.mark.parametrize(
    ("samples", "channels"),
    [(44100, 1), (44100, 2), (44100, 6), (44100, 7), (8000, 1), (96000, 2), (37800, 1), (192000, 2)],
)
def test_clicks_are_heard_at_their_frames(tmp_path, samples, channels):
    count = 150
    duration = count / RATE
    wave = torch.zeros(1, channels, int(3.5 * samples))  # shorter than the video
    clicks = [Fraction(1, 2), Fraction(3, 2), Fraction(5, 2)]
    for click in clicks:
        wave[..., round(click * samples) : round(click * samples) + samples // 500] = 0.9
    paths = pieces(tmp_path, lengths=(50, 50, 50))
    join(paths, tmp_path / "all.mp4", RATE, Sound.of(wave, samples))
    sound = FileSource(tmp_path / "all.mp4").sound()
    assert sound.channels == (channels if channels < 7 else 2)
    assert sound.rate == (samples if samples in (44100, 8000, 96000) else 48000)
    heard = np.abs(np.concatenate(list(sound.blocks), axis=1)[0])
    for click in clicks:
        start = round((click - Fraction(1, 4)) * sound.rate)
        first = start + int(np.argmax(heard[start : start + sound.rate // 2] > 0.3))
        assert abs(first / sound.rate - click) < 0.004  # a frame is 0.033
    with av.open(str(tmp_path / "all.mp4")) as container:
        stream = container.streams.audio[0]
        assert abs(stream.duration * stream.time_base - duration) < Fraction(2, 1000)


def test_sound_beside_the_frames_is_cut_to_their_length(tmp_path, noise):
    wave = torch.full((1, 2, 480000), 0.25)
    wave[..., 100] = float("nan")
    with VideoWriter(tmp_path / "a.mp4", 64, 48, 24, audio=Sound.of(wave, 48000)) as writer:
        writer.write(noise)
    with av.open(str(tmp_path / "a.mp4")) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert video.duration * video.time_base == Fraction(7, 24)
        assert abs(audio.duration * audio.time_base - Fraction(7, 24)) <= Fraction(1, 1000)  # MP4 counts edits in ms
        assert container.duration < 300_000


def test_the_index_is_in_front(tmp_path):
    join(pieces(tmp_path, lengths=(5,)), tmp_path / "all.mp4", RATE)
    data = (tmp_path / "all.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_an_error_leaves_nothing_and_what_was_there_stays(tmp_path, noise):
    (tmp_path / "a.mp4").write_bytes(b"finished before")
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "a.mp4", 64, 48, 24) as writer:
        writer.write(noise)
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == b"finished before"


@pytest.mark.parametrize("codec", ["h264", "lossless"])
def test_a_full_disk_is_told_in_one_sentence(tmp_path, noise, codec):
    paths = pieces(tmp_path, lengths=(5, 5))
    (tmp_path / "a.mp4.part").symlink_to("/dev/full")
    with pytest.raises(InputError, match="disk is full"), VideoWriter(tmp_path / "a.mp4", 64, 48, 24, codec) as writer:
        for _ in range(40):
            writer.write(noise)
    (tmp_path / "all.mp4.part").symlink_to("/dev/full")
    with pytest.raises(InputError, match="disk is full"):
        join(paths, tmp_path / "all.mp4", RATE)
    assert sorted(os.listdir(tmp_path)) == ["piece0.mp4", "piece1.mp4"]


def test_wrong_input_is_told(tmp_path, noise):
    with pytest.raises(InputError, match="codec is 'gif'"):
        VideoWriter(tmp_path / "a.mp4", 64, 48, 24, "gif")
    with pytest.raises(InputError, match="63 x 48"):
        VideoWriter(tmp_path / "a.mp4", 63, 48, 24)
    with pytest.raises(InputError, match="no frames"), VideoWriter(tmp_path / "a.mp4", 64, 48, 24):
        pass
    with pytest.raises(InputError, match="7 x 48 x 64 x 3"), VideoWriter(tmp_path / "a.mp4", 64, 64, 24) as writer:
        writer.write(noise)
    with pytest.raises(InputError, match="no numbers"), VideoWriter(tmp_path / "a.mp4", 64, 48, 24) as writer:
        writer.write(torch.full((1, 48, 64, 3), float("nan")))
    with pytest.raises(InputError, match="no pieces"):
        join([], tmp_path / "a.mp4", 24)
    assert os.listdir(tmp_path) == []


def test_pieces_that_do_not_fit_are_told(tmp_path, noise):
    first, second = pieces(tmp_path, lengths=(5, 5))
    with VideoWriter(second, 64, 48, RATE) as writer:
        writer.write(noise)
    with pytest.raises(InputError, match=r"piece1.mp4 is damaged or was made with other settings"):
        join([first, second], tmp_path / "all.mp4", RATE)
    second.write_bytes(first.read_bytes()[:900])
    with pytest.raises(InputError, match=r"piece1.mp4 is damaged"):
        join([first, second], tmp_path / "all.mp4", RATE)
    assert not (tmp_path / "all.mp4").exists() and not (tmp_path / "all.mp4.part").exists()


def rewritten(path: Path, out: Path, change) -> Path:
    """A copy of a video without encoding; change(number, packet): False leaves a packet out."""
    with av.open(str(path)) as given, av.open(str(out), "w") as made:
        stream = made.add_stream_from_template(given.streams.video[0], opaque=True)
        for number, packet in enumerate(given.demux(given.streams.video[0])):
            if packet.size and change(number, packet) is not False:
                packet.stream = stream
                made.mux(packet)
    return out


def hide_first(path: Path) -> None:
    """Move the start of an MP4's edit list by some frames, as cutting without encoding does."""
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 16
    data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") + 2000).to_bytes(4, "big")
    path.write_bytes(data)


def later(number, packet):
    if number > 30:
        packet.pts, packet.dts = packet.pts + 4000, packet.dts + 4000


@pytest.mark.parametrize("codec", ["h264", "lossless"])
def test_what_can_be_joined_without_encoding_is_known(tmp_path, noise, codec):
    paths = pieces(tmp_path, codec=codec)
    whole = tmp_path / "whole.mp4"
    join(paths, whole, RATE, Sound(48000, 1, [np.zeros((1, 48000), np.float32)]))
    same = rewritten(whole, tmp_path / "same.mov", lambda *_: None)
    for path in (whole, same):
        assert FileSource(path).plain == path and fits(path, paths[0], RATE)
    assert join([same, paths[0]], tmp_path / "more.mp4", RATE) == 53 + (count := probe(FileSource(paths[0])).frames)
    assert numbers_of(decoded(tmp_path / "more.mp4")) == [*range(53), *range(count)]

    others = {
        "uneven.mp4": rewritten(whole, tmp_path / "uneven.mp4", later),
        "no key.mp4": rewritten(whole, tmp_path / "no key.mp4", lambda number, _: number > 10),
        "x264.mp4": clip(tmp_path / "x264.mp4", rate=RATE, options={"crf": "30"}),
        "hidden.mp4": tmp_path / "hidden.mp4",
        "missing.mp4": tmp_path / "missing.mp4",
    }
    shutil.copy(whole, others["hidden.mp4"])
    hide_first(others["hidden.mp4"])
    for name, path in others.items():
        assert not fits(path, paths[0], RATE), name
    assert not fits(whole, paths[0], 25)
    with VideoWriter(tmp_path / "25.mp4", 160, 64, 25, codec) as writer:
        writer.write(numbered(0))
    assert not fits(tmp_path / "25.mp4", paths[0], RATE)

    for how in (90, "mirrored"):
        turned = shutil.copy(whole, tmp_path / f"{how}.mp4")
        turn(turned, how)
        assert FileSource(turned).plain is None
    assert FileSource(io.BytesIO(whole.read_bytes())).plain is None


@pytest.mark.parametrize(
    "to_rate", [24, 25, 30, 60, 12, Fraction(24000, 1001), Fraction(30000, 1001), Fraction(2731, 99)]
)
def test_rates_are_converted_without_drift(to_rate):
    count = 24 * 1200
    whole = resample_indices(count, 24, to_rate)
    assert len(whole) == frames_at(Fraction(count, 24), to_rate)
    shown = (np.arange(len(whole)) + 0.5) / float(to_rate)
    assert np.abs((np.array(whole) + 0.5) / 24 - shown).max() <= 0.5 / 24 + 1e-6
    parts, start = [], 0
    for length in (120, 1, 7, 300, 119):
        parts += [start + index for index in resample_indices(length, 24, to_rate, start)]
        start += length
    assert parts == whole[: len(parts)]


def test_equal_rates_show_every_frame():
    assert resample_indices(9, 24, 24, start=5) == list(range(9))
    assert resample_indices(4, 24, 48) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert resample_indices(4, 24, 12) == [1, 3]


GROWTH = """
import resource, sys, numpy as np
from fractions import Fraction
from pathlib import Path
from pack.skyreels_v3.video.writer import VideoWriter
from pack.skyreels_v3.video.join import join
from pack.skyreels_v3.video.sources.source import Sound
folder, seconds = Path(sys.argv[1]), int(sys.argv[2])
frame = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
paths = []
for roll in range(seconds // 5):
    paths.append(folder / f"{roll}.mp4")
    with VideoWriter(paths[-1], 96, 64, 24) as writer:
        for number in range(120):
            writer.write(np.roll(frame, number, axis=1))
blocks = (np.zeros((2, 48000), dtype=np.float32) for _ in range(seconds))
join(paths, folder / "all.mp4", Fraction(24), Sound(48000, 2, blocks))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_length(tmp_path):
    def peak(seconds: int) -> int:
        run = [sys.executable, "-c", GROWTH, str(tmp_path), str(seconds)]
        tools = str(Path(__file__).resolve().parents[2] / "tools")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([tools, os.environ.get("PYTHONPATH", "")])}
        return int(subprocess.run(run, env=environment, capture_output=True, check=True, text=True).stdout)

    assert peak(30) <= 1.05 * peak(10)


WRITE = """
import sys
import torch
from pack.skyreels_v3.video.writer import VideoWriter
coarse = torch.rand(24, 3, 8, 12, generator=torch.Generator().manual_seed(1))
smooth = torch.nn.functional.interpolate(coarse, size=(64, 96), mode="bilinear")
with VideoWriter(sys.argv[1], 96, 64, 24) as writer:
    writer.write(smooth.permute(0, 2, 3, 1))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="MALLOC_PERTURB_ is glibc's")
def test_the_same_frames_give_the_same_file_whatever_lies_in_memory(tmp_path):
    written = []
    for filling in ("0", "1", "90"):
        path = tmp_path / f"{filling}.mp4"
        environment = {**os.environ, "MALLOC_PERTURB_": filling, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run([sys.executable, "-c", WRITE, str(path)], check=True, env=environment)
        written.append(path.read_bytes())
    assert written[0] == written[1] == written[2]
