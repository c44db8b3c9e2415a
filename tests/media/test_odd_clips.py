"""Clips whose clock, rate, colours or fields are not as a model knows them, as phones, screens and DVDs make them."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.video.concat import concat
from pack.skyreels_v3.video.rates import resample_indices, written_rate
from pack.skyreels_v3.video.sources.animation import Animation, file_source
from pack.skyreels_v3.video.sources.file import FileSource
from pack.skyreels_v3.video.sources.source import frames, last_frames
from pack.skyreels_v3.video.sources.tones import HLG, PQ, sdr_of, to_sdr
from pack.tests.support.video_clips import clip, numbered, numbers_of, probe

RATE_25 = {"codec": "mpeg2video", "rate": 25, "options": {"bf": "2"}}


def pitch(samples: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate / len(samples))


@pytest.mark.parametrize("lengths", [(2, 2), (3, 1), (1, 3), (1, 2, 1)])
@pytest.mark.parametrize("ending", ["ts", "vob"])
def test_a_clock_that_starts_again_goes_on(tmp_path, ending, lengths):
    joined, number, rate, kind = b"", 0, 48000, "vob" if ending == "vob" else None
    for part, seconds in enumerate(lengths):
        wave = 0.4 * np.sin(2 * np.pi * 440 * (part + 1) * np.arange(seconds * rate) / rate)[None]
        pictures = [numbered(number + frame) for frame in range(25 * seconds)]
        sound = (wave.astype(np.float32), rate)
        joined += clip(tmp_path / f"part.{ending}", pictures, sound=sound, format=kind, **RATE_25).read_bytes()
        number += len(pictures)
    (tmp_path / f"all.{ending}").write_bytes(joined)
    source = FileSource(tmp_path / f"all.{ending}")
    info = probe(source)
    assert (info.frames, info.frame_rate, info.duration) == (number, 25, sum(lengths))
    assert numbers_of(last_frames(source, 9, fps=25)) == list(range(number - 9, number))
    assert numbers_of(frames(source)) == list(range(number))
    heard = np.concatenate(list(source.sound().blocks), axis=1)[0]
    assert abs(len(heard) / rate - sum(lengths)) < 0.1
    start = 0
    for part, seconds in enumerate(lengths):
        middle = heard[round((start + 0.2) * rate) : round((start + seconds - 0.2) * rate)]
        assert pitch(middle, rate) == pytest.approx(440 * (part + 1), abs=5)
        start += seconds


@pytest.mark.parametrize("silent", [1, 2])
def test_a_part_without_sound_keeps_its_time(tmp_path, silent):
    joined, rate = b"", 48000
    for part in range(3):
        wave = 0.4 * np.sin(2 * np.pi * 440 * (part + 1) * np.arange(rate) / rate)[None].astype(np.float32)
        sound = None if part == silent else (wave, rate)
        joined += clip(tmp_path / "part.ts", 25, sound=sound, **RATE_25).read_bytes()
    (tmp_path / "all.ts").write_bytes(joined)
    heard = np.concatenate(list(FileSource(tmp_path / "all.ts").sound().blocks), axis=1)[0]
    for part in {0, 1, 2} - {silent}:
        middle = heard[round((part + 0.2) * rate) : round((part + 0.8) * rate)]
        assert pitch(middle, rate) == pytest.approx(440 * (part + 1), abs=5)


def test_a_clock_that_starts_far_below_goes_on(tmp_path):
    """FFmpeg takes it for one that has overflown, and says that 26 hours lie between."""
    late = clip(tmp_path / "a.ts", 25, container={"output_ts_offset": "36000"}, **RATE_25).read_bytes()
    early = clip(tmp_path / "b.ts", [numbered(25 + frame) for frame in range(25)], **RATE_25).read_bytes()
    for order, wanted in ((late + early, range(50)), (early + late, [*range(25, 50), *range(25)])):
        (tmp_path / "all.ts").write_bytes(order)
        assert numbers_of(frames(FileSource(tmp_path / "all.ts"))) == list(wanted)


def ticks(steps) -> list[Fraction]:
    return [Fraction(round(time * 90000), 90000) for time in np.cumsum([0, *steps])]


def without(rate: float, count: int, share: float) -> list[float]:
    kept = np.flatnonzero(np.random.default_rng(0).random(count) >= share)
    return list(np.diff(kept) / rate)


UNEVEN = {
    "a screen: bursts at 60, then still": ([1 / 60] * 10 + [0.6] + [1 / 60] * 20 + [1.8] + [1 / 60] * 15, 60),
    "a phone: 59.94 with a tenth missing": (without(60000 / 1001, 150, 0.1), Fraction(60000, 1001)),
    "29.97 with one missing": ([1001 / 30000] * 50 + [2002 / 30000] + [1001 / 30000] * 48, Fraction(30000, 1001)),
    "25 with a long first one": ([0.12] + [0.04] * 50, 25),
    "24 that shakes": (1 / 24 + np.tile([0.003, -0.003, 0.001, -0.001], 20), 24),
    "pictures of 2 to 9 seconds": ([2, 9, 3, 5], 12),
}


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("name", UNEVEN)
def test_uneven_frames_have_the_rate_they_were_made_at(tmp_path, name, ending):
    steps, rate = UNEVEN[name]
    times = ticks(steps)
    info = probe(FileSource(clip(tmp_path / f"a.{ending}", len(times), times=times)))
    assert (info.variable, info.frame_rate) == ("shakes" not in name, rate)


def test_written_rates_lose_nothing_that_was_made():
    kept = (24, 25, 30, Fraction(24000, 1001), Fraction(60000, 1001), 75, 120)
    assert [written_rate(rate, least=24) for rate in kept] == list(kept)
    slow = {1: 24, Fraction(1, 30): 24, 8: 24, 10: 30, 12: 24, 15: 30, 16: 48, 20: 60, 14: 28, Fraction(25, 2): 25}
    assert {rate: written_rate(rate, least=24) for rate in slow} == slow
    for rate in slow:
        assert sorted(set(resample_indices(24, 24, written_rate(rate, least=24)))) == list(range(24))
    assert [written_rate(rate) for rate in (240, 144, 90000, 15, 1)] == [120, 72, 120, 15, 12]


def test_a_film_that_starts_with_a_slide_show_moves(tmp_path):
    slides = FileSource(clip(tmp_path / "a.mp4", 2, rate=1))
    clip_of_24 = FileSource(clip(tmp_path / "b.mp4", 12, rate=24))
    assert concat([slides, clip_of_24], tmp_path / "film.mp4") == 48 + 12
    assert numbers_of(frames(FileSource(tmp_path / "film.mp4")))[48:] == list(range(12))


@pytest.mark.parametrize("ending", ["m4a", "mp3"])
def test_the_cover_of_a_song_is_no_video(tmp_path, ending):
    with av.open(str(tmp_path / f"a.{ending}"), "w", format="mp4" if ending == "m4a" else "mp3") as out:
        sound = out.add_stream("aac" if ending == "m4a" else "mp3", rate=48000, layout="mono")
        cover = out.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = type(cover.disposition).attached_pic
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 9600), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        picture = av.VideoFrame.from_image(Image.new("RGB", (64, 64), "red")).reformat(format="yuvj420p")
        out.mux([*cover.encode(picture), *cover.encode(None)])
        out.mux([*sound.encode(frame), *sound.encode(None)])
    with pytest.raises(InputError, match="has sound but no picture"):
        probe(FileSource(tmp_path / f"a.{ending}"))


def test_interlaced_frames_lose_their_combs(tmp_path):
    """A bright bar runs; the second field, that of the upper lines, is half a frame later."""

    def bar(time):
        picture = np.full((64, 160, 3), 40, np.uint8)
        picture[:, round(8 * time) % 120 : round(8 * time) % 120 + 30] = 220
        return picture

    woven = []
    for frame in range(12):
        picture = bar(frame)
        picture[0::2] = bar(frame + 0.5)[0::2]
        woven.append(picture)
    with av.open(str(tmp_path / "a.ts"), "w") as out:
        stream = out.add_stream("mpeg2video", rate=25, options={"flags": "+ildct+ilme", "q:v": "2"})
        stream.width, stream.height, stream.pix_fmt = 160, 64, "yuv420p"
        for number, picture in enumerate(woven):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))

    def combs(pixels):
        lines = pixels[..., 1].astype(int)
        return np.abs(2 * lines[1:-1] - lines[:-2] - lines[2:]).mean()

    source = FileSource(tmp_path / "a.ts")
    assert probe(source).interlaced
    seen = list(frames(source))
    assert len(seen) == 12
    for number in range(2, 10):
        assert combs(seen[number]) < combs(woven[number]) / 10
        assert np.abs(seen[number].astype(int) - bar(number)).mean() < 8
    assert np.array_equal(last_frames(source, 1, fps=25)[0], seen[-1])


@pytest.mark.parametrize("codec", ["libvpx-vp9", "libvpx"])
def test_transparent_webm_is_laid_over_white(tmp_path, codec):
    picture = np.zeros((64, 160, 4), np.uint8)
    picture[..., 0] = 200  # red lies under what is transparent
    picture[:, 80:, 3] = 255
    options = {"auto-alt-ref": "0", "deadline": "realtime", "cpu-used": "8"}
    with av.open(str(tmp_path / "a.webm"), "w") as out:
        stream = out.add_stream(codec, rate=24, options=options)
        stream.width, stream.height, stream.pix_fmt = 160, 64, "yuva420p"
        stream.metadata["alpha_mode"] = "1"
        for number in range(6):
            frame = av.VideoFrame.from_ndarray(picture, format="rgba").reformat(format="yuva420p")
            frame.pts, frame.time_base = number, Fraction(1, 24)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    source = FileSource(tmp_path / "a.webm")
    seen = list(frames(source))
    assert len(seen) == 6 and source.info.transparent
    assert seen[3][:, :70].min() > 245 and np.abs(seen[3][:, 90:].astype(int) - [200, 0, 0]).max() < 12


def hlg_code(light: np.ndarray) -> np.ndarray:
    """BT.2100's HLG of light on a display of 1000 nits; light: grey, 1 is 203 nits."""
    scene = (light * 0.203) ** (1 / 1.2)
    bright = 0.17883277 * np.log(np.maximum(12 * scene, 1) - 0.28466892) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)


def pq_code(light: np.ndarray) -> np.ndarray:
    root = (light * 0.0203) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * root) / (1 + 2392 / 128 * root)) ** (2523 / 32)


@pytest.mark.parametrize(("transfer", "code"), [(HLG, hlg_code), (PQ, pq_code)])
def test_hdr_becomes_sdr(transfer, code):
    shown = np.linspace(0, 0.72, 10)  # below half of white
    grey = np.repeat(code(shown**2.4)[:, None], 3, axis=1)
    assert np.abs(sdr_of(grey, transfer) - shown[:, None]).max() < 0.004
    bright = sdr_of(np.repeat(code(np.array([0.5, 1, 2, 4, 1000 / 203]))[:, None], 3, axis=1), transfer)[:, 0]
    assert (np.diff(bright) > 0).all() and bright[1] == pytest.approx(0.9, abs=0.02) and bright[-1] > 0.99
    stored = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    wanted = sdr_of(stored / 255, transfer) * 255
    assert np.abs(to_sdr(stored, transfer) - wanted).mean() < 1.5, "the table is fine enough"


@pytest.mark.parametrize(("transfer", "code"), [(HLG, hlg_code), (PQ, pq_code)])
def test_an_hdr_file_is_read_as_sdr(tmp_path, transfer, code):
    tags = {"colorspace": 9, "color_primaries": 9, "color_trc": transfer, "color_range": 1}
    level = float(code(np.array([0.5**2.4]))[0])
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        stream = out.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p10le"
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        planes = np.full((72, 64), 512, np.uint16)
        planes[:48] = round(64 + 876 * level)
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p10le")
        frame.pts, frame.time_base = 0, Fraction(1, 24)
        out.mux([*stream.encode(frame), *stream.encode(None)])
    source = FileSource(tmp_path / "a.mkv")
    assert probe(source).hdr in ("HDR (HLG)", "HDR (PQ)")
    assert np.abs(next(frames(source)).astype(int) - 127.5).max() < 3


@pytest.mark.parametrize(
    ("lengths", "rate"),
    [([41] * 20, 24), ([33, 33, 34] * 8, 30), ([40] * 20, 25), ([0] * 20, 10), ([70] * 20, Fraction(100, 7))],
)
def test_animated_webp_is_read_at_the_rate_it_was_made_at(tmp_path, lengths, rate):
    pictures = [Image.fromarray(numbered(number)) for number in range(len(lengths))]
    path = tmp_path / "named.mp4"
    pictures[0].save(path, "WEBP", save_all=True, append_images=pictures[1:], duration=lengths, lossless=True)
    for source in (file_source(path), file_source(io.BytesIO(path.read_bytes()))):
        info = probe(source)
        assert (info.width, info.height, info.frame_rate, info.frames) == (160, 64, rate, len(lengths))
        assert not info.variable and info.duration == len(lengths) / Fraction(rate) and source.sound() is None
        assert numbers_of(frames(source)) == list(range(len(lengths)))
        assert numbers_of(last_frames(source, 5, fps=rate)) == list(range(len(lengths) - 5, len(lengths)))


def test_uneven_transparent_still_and_damaged_webp(tmp_path):
    pictures = [Image.fromarray(numbered(number)) for number in range(6)]
    lengths = [40, 500, 40, 40, 90, 1000]
    path = tmp_path / "a.webp"
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=lengths, lossless=True)
    assert probe(file_source(path)).variable and not probe(file_source(path)).transparent
    shown = numbers_of(frames(file_source(path), 100))
    assert [shown.count(number) for number in range(6)] == [length // 10 for length in lengths]

    (tmp_path / "cut.webp").write_bytes(path.read_bytes()[:-300])
    with pytest.raises(InputError, match=r"The video cut\.webp can't be opened as a video"):
        probe(file_source(tmp_path / "cut.webp"))
    with pytest.raises(InputError, match="is not there"):
        probe(file_source(tmp_path / "none.webp"))

    clear = np.zeros((64, 160, 4), np.uint8)
    clear[:, 80:, 3] = 255
    Image.fromarray(clear).save(tmp_path / "still.webp", lossless=True)
    still = file_source(tmp_path / "still.webp")
    assert isinstance(still, Animation) and (probe(still).frames, probe(still).frame_rate) == (1, 25)
    assert probe(still).transparent
    seen = last_frames(still, 9)
    assert len(seen) == 1 and (seen[:, :, :80] == 255).all() and (seen[:, :, 80:] == 0).all()


def test_an_animated_avif_is_more_than_its_poster(tmp_path):
    pictures = [Image.fromarray(numbered(number)) for number in range(12)]
    pictures[0].save(tmp_path / "a.avif", save_all=True, append_images=pictures[1:], duration=40)
    assert numbers_of(frames(file_source(tmp_path / "a.avif"))) == list(range(12))


def test_an_avif_with_alpha_lies_on_white(tmp_path):
    """What lies under the transparent part is not shown."""
    pictures = []
    for number in range(12):
        clear = np.full((64, 320, 4), 255, np.uint8)
        clear[:, :160, :3], clear[:, 160:] = numbered(number), (200, 30, 30, 0)
        pictures.append(Image.fromarray(clear))
    pictures[0].save(tmp_path / "a.avif", save_all=True, append_images=pictures[1:], duration=40)
    for given in (tmp_path / "a.avif", io.BytesIO((tmp_path / "a.avif").read_bytes())):
        source = file_source(given)
        assert (probe(source).frames, probe(source).frame_rate) == (12, 25)
        seen = frames(source)
        assert numbers_of([one[:, :160] for one in seen]) == list(range(12))
        assert all((one[:, 170:] >= 250).all() for one in seen)
    (tmp_path / "cut.avif").write_bytes((tmp_path / "a.avif").read_bytes()[:300])
    with pytest.raises(InputError, match=r"cut\.avif can't be opened"):
        probe(file_source(tmp_path / "cut.avif"))


@pytest.mark.parametrize(("orientation", "angle"), [(None, 0), (1, 0), (3, 180), (6, 90), (8, 270)])
def test_frames_with_exif_are_read(tmp_path, orientation, angle):
    """Cameras write it into each frame of their AVIs (Motion JPEG); av has no name for it."""
    exif = Image.Exif()
    exif[0x010F] = "A camera"
    if orientation is not None:
        exif[0x0112] = orientation
    data, picture = io.BytesIO(), numbered(5)
    picture[:32, :80] = 128
    Image.fromarray(picture).save(data, "JPEG", exif=exif.tobytes(), quality=95)
    with av.open(str(tmp_path / "a.avi"), "w") as out:
        stream = out.add_stream("mjpeg", rate=15)
        stream.width, stream.height, stream.pix_fmt = 160, 64, "yuvj420p"
        for number in range(3):
            packet = av.Packet(data.getvalue())
            packet.stream, packet.time_base = stream, Fraction(1, 15)
            packet.pts = packet.dts = number
            packet.is_keyframe = True
            out.mux(packet)
    source = FileSource(tmp_path / "a.avi")
    info = probe(source)
    assert (info.rotation, info.frames, info.frame_rate) == (angle, 3, 15)
    for pixels in frames(source):
        assert np.abs(pixels.astype(int) - np.rot90(picture, -angle // 90)).mean() < 8


def test_one_frame_has_no_rate_of_a_clock(tmp_path):
    Image.fromarray(numbered(5)).save(tmp_path / "a.gif")
    assert probe(FileSource(tmp_path / "a.gif")).frame_rate <= 25
    for rate in (Fraction(1, 30), 24, 60):
        assert probe(FileSource(clip(tmp_path / "a.mp4", 1, rate=rate))).frame_rate == rate
