"""Videos as artists have them: any container, rate, rotation, colour, damage; and only their end is decoded."""

import io
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from pack.dev.samples import workflow_inputs
from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.images.resize import cover_crop
from pack.skyreels_v3.video.cuts import last_cut
from pack.skyreels_v3.video.sources.file import FileSource
from pack.skyreels_v3.video.sources.pixels import Converter
from pack.skyreels_v3.video.sources.source import FramesSource, frames, last_frames, read_at
from pack.skyreels_v3.video.sources.trimmed import TrimmedSource
from pack.tests.support.video_clips import clip, number_of, numbered, numbers_of, probe, turn

QUIET = {"x265-params": "log-level=none"}
FLAVOURS = {
    "plain.mp4": {},
    "fragments.mp4": {"container": {"movflags": "frag_keyframe+empty_moov"}},
    "open_gop.mp4": {"options": {"x264-params": "open-gop=1:bframes=3"}},
    "long_gop.mp4": {"gop": 250},
    "hevc_10_bit.mp4": {"codec": "libx265", "pix_fmt": "yuv420p10le", "options": QUIET},
    "odd_444.mp4": {"pix_fmt": "yuv444p", "size": (161, 63)},
    "prores_422.mov": {"codec": "prores_ks", "pix_fmt": "yuv422p10le"},
    "prores_alpha.mov": {"codec": "prores_ks", "pix_fmt": "yuva444p10le"},
    "milliseconds.mkv": {},
    "lossless_rgb.mkv": {"codec": "ffv1", "pix_fmt": "bgr0"},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime"}},
    "no_show_times.avi": {},
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "mpeg2.mpg": {"codec": "mpeg2video", "rate": 25, "options": {"bf": "2"}},
    "stream.ts": {},
    "flash.flv": {},
    "no_times.h264": {"rate": 25, "format": "h264"},
    "pictures.gif": {"codec": "gif", "pix_fmt": "rgb8", "rate": 25},
    "late.mkv": {"times": [5 + Fraction(frame, 24) for frame in range(48)]},
    "late.mp4": {"times": [5 + Fraction(frame, 24) for frame in range(48)]},
}


@pytest.mark.parametrize("name", FLAVOURS)
def test_every_flavour_is_read_whole_and_from_its_end(tmp_path, name):
    source = FileSource(clip(tmp_path / name, **FLAVOURS[name]))
    info = probe(source)
    rate = FLAVOURS[name].get("rate", 24)
    assert (info.width, info.height) == FLAVOURS[name].get("size", (160, 64))
    assert (info.frame_rate, info.frames, info.duration) == (rate, 48, Fraction(48, rate))
    assert info.exact and not (info.variable or info.has_audio or info.cut_off or info.rotation or info.transparent)
    assert numbers_of(last_frames(source, 9, fps=rate)) == list(range(39, 48))
    assert numbers_of(frames(source)) == list(range(48))
    assert last_frames(source, 99, fps=rate).shape == (48, info.height, info.width, 3)


@pytest.mark.parametrize("rate", ["24000/1001", "25", "30000/1001", "30", "60"])
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_the_end_of_any_rate_is_on_a_grid_of_24(tmp_path, rate, ending):
    source = FileSource(clip(tmp_path / f"a.{ending}", 90, rate))
    assert probe(source).frame_rate == Fraction(rate)
    got = numbers_of(last_frames(source, 25))
    assert len(got) == 25 and got[-1] == 89
    wanted = [89 - back * float(Fraction(rate)) / 24 for back in reversed(range(25))]
    assert np.abs(np.array(got) - wanted).max() <= 0.55  # milliseconds in mkv
    assert len(list(frames(source, 24))) == probe(source).frames_at(24)


def test_a_variable_rate_is_read_by_time(tmp_path):
    rng = np.random.default_rng(1)
    times = [Fraction(round(time * 90000), 90000) for time in np.cumsum(rng.uniform(0.02, 0.06, 60))]
    source = FileSource(clip(tmp_path / "a.mp4", times=times, frames=60))
    info = probe(source)
    assert info.variable and info.frames == 60
    assert info.frame_rate == 24, "the usual rate that is nearest to 23.9"
    wanted = [
        min(range(60), key=lambda frame: abs(times[frame] - times[-1] + Fraction(back, 24))) for back in range(25)
    ]
    assert numbers_of(last_frames(source, 25)) == wanted[::-1]
    assert numbers_of(read_at(source, [0, Fraction(1, 2)]))[0] == 0
    constant = numbers_of(frames(source, 24))
    assert len(constant) == info.frames_at(24) and constant == sorted(constant) and constant[-1] == 59


@pytest.mark.parametrize("how", [90, 180, 270, "mirrored"])
def test_rotation_flags_are_followed(tmp_path, how):
    picture = np.zeros((64, 160, 3), dtype=np.uint8)
    picture[:32, :80] = 255  # bright at the top left
    path = clip(tmp_path / "a.mp4", [picture] * 3)
    turn(path, how)
    info, seen = probe(FileSource(path)), next(frames(FileSource(path)))
    wanted = picture[:, ::-1] if how == "mirrored" else np.rot90(picture, -how // 90)
    assert (info.height, info.width, 3) == seen.shape == wanted.shape
    assert info.rotation == (0 if how == "mirrored" else how)
    assert np.abs(seen.astype(int) - wanted).mean() < 10


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("matrix", "kr", "kb"), [(1, 0.2126, 0.0722), (5, 0.299, 0.114), (6, 0.299, 0.114), (9, 0.2627, 0.0593)]
)
@pytest.mark.parametrize("kind", ["yuv420p", "yuv422p10le", "yuv444p", "yuva444p", "nv12", "yuvj420p"])
def test_matrix_and_range_are_undone(kind, matrix, kr, kb, full):
    frame = av.VideoFrame(64, 48, kind)
    values = [120, 90, 170, 255]
    for plane, value in zip(frame.planes, values):
        one = (value << 2).to_bytes(2, "little") if "10" in kind else bytes([value])
        one = bytes(values[1:3]) if kind == "nv12" and value == 90 else one
        plane.update(one * (plane.buffer_size // len(one)))
    frame.colorspace, frame.color_range = matrix, 2 if full else 1
    luma, blue, red = (
        (120 / 255, -38 / 255, 42 / 255) if full or kind == "yuvj420p" else (104 / 219, -38 / 224, 42 / 224)
    )
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    g = (luma - kr * r - kb * b) / (1 - kr - kb)
    assert np.abs(Converter(frame, None)(frame)[20, 30] - 255 * np.array([r, g, b])).max() < 1.5


def test_transparency_is_laid_over_white(tmp_path):
    picture = np.zeros((64, 160, 4), dtype=np.uint8)
    picture[:, 80:, 3] = 255
    seen = next(frames(FileSource(clip(tmp_path / "a.mkv", [picture] * 2, codec="ffv1", pix_fmt="bgra"))))
    assert (seen[:, :80] == 255).all() and (seen[:, 80:] == 0).all()


def test_pixels_that_are_not_square_become_so():
    frame = av.VideoFrame(72, 48, "yuv420p")
    assert (Converter(frame, Fraction(16, 15)).width, Converter(frame, Fraction(100)).width) == (77, 72)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.mp4"])
def test_one_picture_is_a_video(tmp_path, name):
    if name == "a.mp4":
        clip(tmp_path / name, 1)
    else:
        Image.fromarray(numbered(0)).save(tmp_path / name)
    source = FileSource(tmp_path / name)
    assert probe(source).frames == 1
    assert numbers_of(last_frames(source, 25)) == numbers_of(frames(source)) == [0]


@pytest.mark.parametrize("ending", ["mp4", "mkv", "ts", "avi"])
def test_a_truncated_file_is_used_as_far_as_it_goes(tmp_path, ending):
    rng = np.random.default_rng(0)
    pictures = [np.maximum(numbered(frame), rng.integers(0, 96, (64, 160, 3), dtype=np.uint8)) for frame in range(96)]
    container = {"movflags": "faststart"} if ending == "mp4" else None
    path = clip(tmp_path / f"a.{ending}", pictures, container=container)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    source = FileSource(path)
    got = numbers_of(last_frames(source, 9))
    assert 40 < got[-1] < 70 and got[:-1] == list(range(got[-1] - 8, got[-1]))
    assert probe(source).cut_off or ending in ("ts", "avi")
    assert numbers_of(frames(source))[:40] == list(range(40))


def test_a_file_without_its_index_is_told(tmp_path):
    path = clip(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"a\.mp4 can't be opened as a video"):
        probe(FileSource(path))


def test_what_is_no_video_is_told_in_one_sentence(tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.txt").write_text("once upon a time\n" * 50)
    (tmp_path / "text.mp4").write_text("once upon a time\n" * 50)
    with av.open(str(tmp_path / "sound.m4a"), "w", format="mp4") as out:
        stream = out.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4800), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        out.mux([*stream.encode(frame), *stream.encode(None)])
    told = {
        "empty.mp4": "is empty",
        "text.txt": "text file",
        "text.mp4": "can't be opened",
        "sound.m4a": "has sound but no picture",
        "missing.mp4": "is not there",
        ".": "is a folder",
    }
    for name, words in told.items():
        with pytest.raises(InputError, match=words) as caught:
            probe(FileSource(tmp_path / name))
        assert str(caught.value).endswith("give a video such as MP4 (H.264), MOV, WebM or MKV.")
        assert str(tmp_path) not in str(caught.value)
    with pytest.raises(InputError, match="is empty"):
        probe(FileSource(io.BytesIO()))


def test_bytes_are_read_by_several_at_once(tmp_path):
    wave = np.zeros((2, 48000), dtype=np.float32)
    source = FileSource(io.BytesIO(clip(tmp_path / "a.mp4", sound=(wave, 48000)).read_bytes()))
    sound = iter(source.sound().blocks)
    for number, (one, other) in enumerate(zip(frames(source), frames(source))):
        assert number_of(one) == number_of(other) == number
        next(sound, None)


@pytest.mark.parametrize("channels", [1, 2, 6])
@pytest.mark.parametrize(("ending", "start"), [("mp4", 0), ("mkv", 0), ("mkv", 0.5)])
def test_sound_starts_with_the_first_frame(tmp_path, ending, start, channels):
    wave = np.zeros((channels, 44100), dtype=np.float32)
    wave[:, 22050:22100] = 0.9
    source = FileSource(clip(tmp_path / f"a.{ending}", sound=(wave, 44100), sound_start=start))
    info = probe(source)
    assert (info.has_audio, info.audio_rate, info.audio_channels) == (True, 44100, channels)
    heard = np.concatenate(list(source.sound().blocks), axis=1)
    assert heard.dtype == np.float32 and heard.shape[0] == channels
    assert abs(int(np.argmax(np.abs(heard[0]) > 0.3)) / 44100 - 0.5 - start) < 0.005


def test_sound_before_the_first_frame_is_left_out(tmp_path):
    wave = np.zeros((1, 132300), dtype=np.float32)
    wave[:, 66150:66200] = 0.9
    times = [1 + Fraction(frame, 24) for frame in range(48)]
    source = FileSource(clip(tmp_path / "a.mkv", times=times, sound=(wave, 44100)))
    heard = np.concatenate(list(source.sound().blocks), axis=1)
    assert abs(int(np.argmax(np.abs(heard[0]) > 0.3)) / 44100 - 0.5) < 0.005


def test_only_the_end_is_decoded_and_one_frame_is_held(tmp_path, monkeypatch):
    path = clip(tmp_path / "a.mp4", 600, gop=24)
    source, converted, decoded = FileSource(path), [], []
    probe(source)
    call, stamp = Converter.__call__, FileSource._stamp
    monkeypatch.setattr(Converter, "__call__", lambda self, frame: converted.append(1) or call(self, frame))
    monkeypatch.setattr(FileSource, "_stamp", lambda self, frame: decoded.append(1) or stamp(self, frame))
    small = last_frames(source, 25, fit=lambda pixels: cover_crop(pixels, 32, 16))
    assert small.shape == (25, 16, 32, 3) and small.dtype == torch.uint8
    assert len(converted) == 25 and len(decoded) <= 25 + 2 * 24


def test_a_large_file_is_estimated_from_both_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("pack.skyreels_v3.video.sources.file.SCAN_BYTES", 2000)
    for ending in ("mp4", "mkv", "ts"):
        source = FileSource(clip(tmp_path / f"a.{ending}", 300, 25))
        info = probe(source)
        assert info.exact == (ending == "ts"), "only a stream read to its end shows whether its clock starts again"
        assert info.frame_rate == 25 and abs(info.frames - 300) <= 2
        assert numbers_of(last_frames(source, 3, fps=25)) == [297, 298, 299]


def test_frames_in_memory_are_a_source():
    images = torch.from_numpy(np.stack([numbered(frame) for frame in range(60)])).float() / 255
    source = FramesSource(images, 30, (torch.zeros(1, 2, 96000), 48000))
    info = probe(source)
    assert (info.width, info.height, info.frames, info.duration) == (160, 64, 60, 2)
    assert (info.has_audio, info.audio_rate, info.audio_channels) == (True, 48000, 2)
    assert np.array_equal(last_frames(source, 1)[0], numbered(59))
    assert numbers_of(last_frames(source, 5)) == [54, 55, 56, 58, 59]
    assert numbers_of(frames(source)) == list(range(60))
    assert len(list(frames(source, 24))) == 48
    assert sum(block.shape[1] for block in source.sound().blocks) == 96000
    assert numbers_of(last_frames(FramesSource(images[:1], 24), 25)) == [0]
    assert FramesSource(torch.zeros(3, 4, 5, 4), 24).info.width == 5
    for bad in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="frame rate"):
            FramesSource(images, bad)
    with pytest.raises(InputError, match="The image is"):
        FramesSource(images[:0], 24)


def small(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [np.asarray(frame.to_image().resize((160, 90))) for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    ("name", "cuts"),
    [("bikes.mp4", (30, 76, 137, 187, 242)), ("bigbuckbunny.mp4", ()), ("carphone_pristine.mp4", ())],
)
def test_cuts_of_real_clips_are_found_and_nothing_else(name, cuts):
    clip_frames = small(workflow_inputs.clips() / name)
    for start in range(0, len(clip_frames) - 33, 7):
        inside = [cut - start for cut in cuts if start < cut < start + 33]
        assert last_cut(clip_frames[start : start + 33]) == (inside[-1] if inside else None), start


PHOTOGRAPHS = [Image.fromarray(picture).resize((400, 300)) for picture in (data.astronaut(), data.coffee(), data.cat())]


def pan(picture: Image.Image, count: int, speed: int) -> list[np.ndarray]:
    return [np.asarray(picture)[60:240, index * speed : index * speed + 240] for index in range(count)]


@pytest.mark.parametrize("speed", [0, 2, 5])
def test_cuts_between_photographs_and_what_only_looks_like_one(speed):
    for one in PHOTOGRAPHS:
        shot = pan(one, 30, speed)
        flash = [np.full_like(frame, 255) if index in (14, 15) else frame for index, frame in enumerate(shot)]
        fade = [(frame * max(0.0, 1 - index / 8)).astype(np.uint8) for index, frame in enumerate(shot)]
        for steady in (shot, flash, fade, shot[:1], []):
            assert last_cut(steady) is None
        for other in PHOTOGRAPHS:
            if other is one:
                continue
            second = pan(other, 30, speed)
            for at in (1, 2, 15, 28, 29):
                assert last_cut(shot[:at] + second[at:]) == at
            assert last_cut(torch.from_numpy(np.stack(shot[:9] + second[9:20] + shot[20:]))) == 20
            mix = np.clip((np.arange(30) - 8) / 10, 0, 1)
            dissolve = [(a * (1 - m) + b * m).astype(np.uint8) for a, b, m in zip(shot, second, mix)]
            assert last_cut(dissolve) is None


def test_files_are_closed_when_reading_stops(tmp_path):
    source = FileSource(clip(tmp_path / "a.mp4"))
    reading = frames(source)
    next(reading)
    reading.close()
    descriptors = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
    assert str(tmp_path / "a.mp4") not in [os.readlink(name) for name in descriptors if os.path.islink(name)]


@pytest.mark.parametrize(
    ("start", "seconds"), [(1, 0.5), (0.25, 0), (-0.5, 0), (0, 1), (-1.25, 0.5), (1.9, 7), (0.01, 0)]
)
@pytest.mark.parametrize("name", ["plain.mp4", "milliseconds.mkv", "long_gop.mp4", "late.mkv"])
def test_a_trimmed_video_is_what_starts_in_its_span(tmp_path, name, start, seconds):
    """48 frames at 24 a second."""
    whole = FileSource(clip(tmp_path / name, **FLAVOURS[name]))
    begin = start if start >= 0 else 2 + start
    wanted = [frame for frame in range(48) if begin <= frame / 24 < begin + (seconds or 9)]
    source = TrimmedSource(whole, start, seconds)
    info = probe(source)
    assert (info.frames, info.duration, info.frame_rate) == (len(wanted), Fraction(len(wanted), 24), 24)
    assert numbers_of(frames(source)) == wanted
    assert numbers_of(frames(source, 24, 2)) == wanted[2:]
    assert numbers_of(last_frames(source, 9)) == wanted[-9:]
    assert source.plain is None and source.content() != whole.content()
    assert len({TrimmedSource(whole, *span).content() for span in ((0.5, 0), (0.5, 1), (1, 0))}) == 3


def test_the_sound_of_a_trimmed_video_is_its_own(tmp_path):
    times = np.arange(96000) / 48000
    wave = np.stack([np.sin(2 * np.pi * 440 * times) * (times >= 1)]).astype(np.float32)
    whole = FileSource(clip(tmp_path / "a.mkv", sound=(wave, 48000)))
    for start, seconds, silent, length in ((0.75, 0.5, 0.25, 0.5), (1, 0, 0, 1), (0, 0.5, 0.5, 0.5)):
        sound = TrimmedSource(whole, start, seconds).sound()
        samples = np.concatenate(list(sound.blocks), axis=1)[0]
        assert abs(len(samples) - length * 48000) <= 0.03 * 48000
        loud = np.flatnonzero(np.abs(samples) > 0.1)
        assert (loud[0] if len(loud) else len(samples)) == pytest.approx(silent * 48000, abs=0.01 * 48000)


def test_a_trim_of_uneven_frames_and_of_nothing(tmp_path):
    times = [Fraction(0), Fraction(1, 10), Fraction(1), Fraction(11, 10), Fraction(3)]
    whole = FileSource(clip(tmp_path / "a.mp4", times=times, frames=5))
    assert numbers_of(frames(TrimmedSource(whole, 0.1, 2), 10)) == [1] * 9 + [2] + [3] * 10
    with pytest.raises(InputError, match=r"trimmed to 0\.5 s from 1\.2 s on, where no frame of it starts"):
        TrimmedSource(whole, 1.2, 0.5)
    with pytest.raises(InputError, match="trimmed to what follows 9 s"):
        TrimmedSource(whole, 9)
    assert probe(TrimmedSource(FramesSource(torch.zeros(5, 8, 8, 3), 10), 0.2)).frames == 3
