"""Videos joined into one: every frame and every sample in its place, whatever the parts are; and a list of prompts."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.video.concat import concat, joined_sound
from pack.skyreels_v3.video.sources.file import FileSource
from pack.skyreels_v3.video.sources.source import FramesSource, frames
from pack.tests.support.video_clips import clip, numbers_of

TONES = {"first": 440, "second": 1200, "third": 3000}


def tone(seconds: float, pitch: int, rate: int, channels: int = 1) -> tuple[np.ndarray, int]:
    wave = 0.4 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave[None].astype(np.float32), channels, axis=0), rate


def heard(path, start: float, end: float) -> tuple[float, float]:
    """(loudness, main pitch in Hz) of a stretch of a file's sound."""
    with av.open(str(path)) as file:
        parts = [frame.to_ndarray() for frame in file.decode(audio=0)]
        rate = file.streams.audio[0].rate
    samples = np.concatenate(parts, axis=1).mean(axis=0)[round(start * rate) : round(end * rate)]
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.sqrt((samples**2).mean())), float(np.argmax(spectrum) * rate / len(samples))


def test_frames_and_sounds_stand_in_order(tmp_path):
    parts = [
        # Sound longer than its pictures is cut where they end, shorter sound is followed by silence.
        FileSource(clip(tmp_path / "a.mp4", frames=24, rate=24, sound=tone(3, TONES["first"], 44100, 2))),
        FileSource(clip(tmp_path / "b.mp4", frames=24, rate=24, size=(320, 128))),
        FileSource(clip(tmp_path / "c.mp4", frames=48, rate=24, sound=tone(1, TONES["third"], 16000))),
    ]
    seen = []
    out = tmp_path / "film.mp4"
    assert concat(parts, out, codec="lossless", on_frame=lambda part, pixels: seen.append(part)) == 96
    film = FileSource(out)
    assert (film.info.width, film.info.height, film.info.frame_rate, film.info.frames) == (160, 64, 24, 96)
    assert numbers_of(frames(film)) == [*range(24), *range(24), *range(48)]
    assert seen == [0] * 24 + [1] * 24 + [2] * 48
    assert (film.info.audio_rate, film.info.audio_channels) == (44100, 2)
    for start, end, pitch in ((0.1, 0.9, TONES["first"]), (2.1, 2.9, TONES["third"])):
        loudness, found = heard(out, start, end)
        assert loudness == pytest.approx(0.4 / 2**0.5, rel=0.05) and found == pytest.approx(pitch, abs=3)
    for start, end in ((1.1, 1.9), (3.1, 3.9)):
        assert heard(out, start, end)[0] < 0.002


def test_other_rates_and_shapes_are_brought_to_the_first(tmp_path):
    first = FramesSource(torch.zeros(5, 33, 65, 3), 24)  # an odd side
    second = FileSource(clip(tmp_path / "b.mp4", frames=50, rate=25))
    out = tmp_path / "film.mp4"
    assert concat([first, second], out, "letterbox") == 5 + 48
    info = FileSource(out).info
    assert (info.width, info.height, info.frame_rate, info.frames, info.has_audio) == (64, 32, 24, 53, False)


def test_a_film_of_nothing_is_told(tmp_path):
    with pytest.raises(InputError, match="nothing to join"):
        concat([], tmp_path / "film.mp4")
    assert not list(tmp_path.iterdir())


def test_join_videos_is_a_node(comfyui, pack_nodes, tmp_path):
    from comfy_api.latest import InputImpl

    node = pack_nodes.ready("SkyReelsJoinVideos")
    parts = [clip(tmp_path / f"{name}.mp4", frames=12, sound=tone(0.5, TONES[name], 22050)) for name in TONES]
    videos = {f"video_{number}": InputImpl.VideoFromFile(str(part)) for number, part in zip((1, 3, 4), parts)}
    (video,) = node.execute(fit="crop", codec="h264", **videos, video_2=None).args
    film = Path(video.get_stream_source())
    assert Path(comfyui.folder_paths.get_output_directory()) in film.parents, "the temp folder is emptied by any server"
    made = video.get_components()
    assert (len(made.images), made.frame_rate) == (36, Fraction(24))
    assert numbers_of((made.images.numpy() * 255).round()) == 3 * list(range(12))
    assert made.audio["waveform"].shape[-1] == pytest.approx(1.5 * 22050, abs=2048)


def test_prompts_takes_one_line_after_the_other(comfyui, pack_nodes):
    node = pack_nodes.ready("SkyReelsPrompts")
    german = "Ein großer Hund läuft über die grüne Wiese zum Haus am See."
    text = f"\n# A heading\n  A cat, on a wall!  \n\n{german}\n猫坐在墙上。\n"
    results = [node.execute(prompts=text, number=number).args for number in (1, 2, 3, 4)]
    assert results[0] == ("A cat, on a wall!", "video/SkyReels-V3_01_A_cat_on_a_wall")
    assert results[1][1] == "video/SkyReels-V3_02_Ein_großer_Hund_läuft_über_die_grüne"
    assert results[2] == ("猫坐在墙上。", "video/SkyReels-V3_03_猫坐在墙上")
    assert results[3] == results[0]
    with pytest.raises(pack_nodes.module("skyreels_v3.errors").InputError, match="holds no prompt"):
        node.execute(prompts="# later\n\n", number=1)


def test_sounds_of_ten_minutes_stay_in_their_places():
    """A film's shots: each sound begins with the first frame of its own, to the sample, silence elsewhere."""
    rate, lengths = Fraction(24), [47 + number % 5 for number in range(300)]
    still, loud = torch.zeros(1, 2, 2, 3, dtype=torch.uint8), torch.full((1, 1, 8000), 0.5)
    shots = [None if number % 3 else FramesSource(still, 1, (loud, 8000)) for number in range(len(lengths))]
    sound = joined_sound(shots, rate, lambda number: (lengths[number], True))
    assert sound is not None and (sound.rate, sound.channels) == (8000, 1)
    samples, before = np.concatenate(list(sound.blocks), axis=1)[0], 0
    for number, length in enumerate(lengths):
        start, stop = (round(frames / rate * 8000) for frames in (before, before + length))
        expected = np.zeros(stop - start, dtype=np.float32)
        expected[:8000] = 0.0 if number % 3 else 0.5
        assert np.array_equal(samples[start:stop], expected), number
        before += length
    assert len(samples) == round(before / rate * 8000) and before / rate > 600
    assert joined_sound([None, None], rate, lambda _: (24, True)) is None
