"""tools/measure.py on made clips of which everything is known: cuts, drift, seams, a lag, likeness, the best take."""

import json
import math
import os
import subprocess
import sys
import wave
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from pack.skyreels_v3.errors import InputError
from pack.skyreels_v3.images.colour import lab_to_rgb, rgb_to_lab
from pack.tests.support import registry_archive
from pack.tests.support.video_clips import clip
from pack.tools import measure as command
from pack.tools.measuring import cuts as cut_module
from pack.tools.measuring.likeness import CLIP, DINO, likeness, open_network
from pack.tools.measuring.measured import Measured, Task, Tools, measure
from pack.tools.measuring.python import CHOSEN
from pack.tools.measuring.ranking import ranked
from pack.tools.measuring.stretches import stretches_of

SIZE = (160, 96)
PHOTOGRAPHS = [Image.fromarray(one).convert("RGB").resize((400, 260)) for one in (data.astronaut(), data.coffee())]
SCRIPT = "continue 3s: She looks up.\ncut 2s: [ZOOM_IN_CUT] A cup.\ncontinue 2s: Steam rises."
TOOLS = Tools([], Path("nowhere"))


def pan(picture: int, count: int, first: int = 0) -> list[np.ndarray]:
    """To and fro, so that its colours stay."""
    pixels = np.asarray(PHOTOGRAPHS[picture])
    lefts = [round(60 + 4 * math.sin((first + index) / 4)) for index in range(count)]
    return [pixels[60:156, left : left + 160] for left in lefts]


def cast(frames: list[np.ndarray], lightness: float) -> list[np.ndarray]:
    """The frames with so much more of Lab's L."""
    shift = torch.tensor([lightness, 0.0, 0.0]).view(3, 1, 1, 1)
    rgb = torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2).float() / 255
    moved = lab_to_rgb(rgb_to_lab(rgb) + shift).permute(1, 2, 3, 0)
    return list((moved * 255).round().byte().numpy())


def extended(lightness: float = 0.0) -> list[np.ndarray]:
    """2 s of source, 3 s that go on from it, with a cast, a cut to 2 s of something else, 2 s that go on from that."""
    return [*pan(0, 48), *cast(pan(0, 72, 48), lightness), *pan(1, 96)]


def written(path: Path, frames: list[np.ndarray], prompt: dict | None = None, **options) -> Path:
    clip(path, frames, size=SIZE, options={"crf": "12"}, **options)
    if prompt is not None:
        import av

        plain = path.with_name(f"plain_{path.name}")
        path.rename(plain)
        with av.open(str(plain)) as before, av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as after:
            after.metadata["prompt"] = json.dumps(prompt)
            streams = {one.index: after.add_stream_from_template(one) for one in before.streams}
            for packet in before.demux():
                if packet.dts is not None:
                    packet.stream = streams[packet.stream.index]
                    after.mux(packet)
    return path


def of(path: Path, **options) -> Measured:
    return measure(Task(path, path.stem, **options), TOOLS)


def test_a_video_that_does_as_its_script_says(tmp_path: Path):
    node = {"class_type": "SkyReelsExtendVideo", "inputs": {"script": SCRIPT, "official": False}}
    found = of(written(tmp_path / "a.mp4", extended(6.0), {"3": node}))
    assert found.found == found.cuts.asked == [120]
    assert (found.cuts.precision, found.cuts.recall, found.faults) == (1.0, 1.0, 0.0)
    kinds = [(roll.stretch.kind, roll.stretch.line, roll.stretch.start) for roll in found.rolls]
    assert kinds == [("source", 0, 0), ("continue", 1, 48), ("cut", 2, 120), ("continue", 3, 168)]
    # The cast is the whole drift: what else there is comes of the pan.
    before, after = (of(written(tmp_path / f"{one}.mp4", extended(one)), script=SCRIPT) for one in (0.0, 6.0))
    drift = after.rolls[1].drift
    assert drift == pytest.approx(6.0, rel=0.1) and before.rolls[1].drift < 1
    assert after.rolls[1].seam.colour > before.rolls[1].seam.colour + 8 and after.rolls[0].seam is None
    assert after.rolls[2].seam is None and after.rolls[1].seam.jump > after.rolls[3].seam.jump + 8
    assert [roll.stretch for roll in after.rolls] == [roll.stretch for roll in found.rolls]


def test_a_cut_that_is_missing_and_one_that_nobody_asked_for(tmp_path: Path):
    wrong = of(written(tmp_path / "a.mp4", [*pan(0, 80), *pan(1, 40), *pan(0, 96, 40)]), script=SCRIPT)
    assert wrong.found == [80, 120] and wrong.cuts.unasked == [80] and wrong.cuts.missed == []
    assert (wrong.cuts.precision, wrong.cuts.recall) == (0.5, 1.0)
    dull = of(written(tmp_path / "b.mp4", pan(0, 216)), script=SCRIPT)
    assert (dull.cuts.missed, dull.cuts.precision, dull.cuts.recall, dull.faults) == ([120], None, 0.0, 1.0)
    # Cuts of the footage are nobody's fault.
    footage = of(written(tmp_path / "c.mp4", [*pan(1, 20), *extended()[20:]]), script=SCRIPT)
    assert footage.found == [20, 120] and footage.faults == 0
    good = of(written(tmp_path / "d.mp4", extended()), script=SCRIPT)
    assert ranked([dull, wrong, good])[0][0] is good


def test_the_network_tells_a_cut_on_the_last_frame_of_a_shot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Network:
        device = "cpu"

        def predict_frames(self, frames, quiet):
            likely = torch.zeros(len(frames))
            likely[[119, 150, 151]] = 0.9
            return likely, likely

    monkeypatch.setattr(cut_module, "_network", Network)
    found = of(written(tmp_path / "a.mp4", extended()), script=SCRIPT)
    assert found.found == [120, 152] and found.cuts.unasked == [152] and found.found_by == "TransNetV2"


@pytest.mark.parametrize(
    ("script", "seconds", "starts"),
    [
        ("continue 12s: On.", 12, [0, 5, 10]),
        ("continue 12s: On.", 14, [0, 2, 7, 12]),
        ("scene 5s [anna]: She comes.\ncut 2s: A cup.", 7, [0, 5]),
        ("scene 2s [anna]: She comes.\nspeak [anna: a.wav]: She talks.\ncut 2s: A cup.", 9, [0, 2, 4.76, 7]),
        (
            "scene 2s [anna]: She comes.\nclip a.mp4 3s-4s\nspeak [anna]: Talks.\nclip b.mp4\ncut 2s: A cup.",
            9,
            [0, 2, 3, 7],
        ),
    ],
)
def test_a_script_lies_in_its_video(script: str, seconds: int, starts: list[float]):
    for fps in (Fraction(24), Fraction(30), Fraction(30000, 1001)):
        frames = round(seconds * fps)
        placed = stretches_of(script, frames, fps)
        assert [one.start for one in placed] == [round(start * fps) for start in starts]
        assert placed[-1].stop == frames and all(one.stop == two.start for one, two in pairwise(placed))


def test_connected_footage_stands_before_whatever_a_film_begins_with(tmp_path: Path):
    script = "scene 2s [anna]: She comes.\ncontinue 2s: On."
    inputs = {"script": script, "source": ["4", 0]}
    video = written(
        tmp_path / "a.mp4", [*pan(0, 30), *pan(1, 96)], {"3": {"class_type": "SkyReelsFilm", "inputs": inputs}}
    )
    found = of(video)
    kinds = [(roll.stretch.kind, roll.stretch.start) for roll in found.rolls]
    assert kinds == [("source", 0), ("scene", 30), ("continue", 78)]
    assert found.cuts.asked == [30] and found.faults == 0 and not any("script" in one for one in found.left_out)


PLACED = [("source", 0), ("scene", 48), ("speak", 96), ("cut", 156)]


@pytest.mark.parametrize(
    ("footage", "heard", "placed"),
    [
        ("", 2.48, PLACED),  # 62 frames at 25
        ("b.mp4", None, PLACED),
        ("b.mp4 [input]", 2.48, PLACED),
        ("", None, [("unplaced", 0), ("cut", 156)]),
        ("", 30, [("unplaced", 0), ("cut", 156)]),  # too long for the video: another file by now
        ("b.mp4", 3.0, [("unplaced", 0), ("cut", 156)]),
    ],
)
def test_what_lies_between_two_open_lengths_is_placed_by_their_files(tmp_path: Path, footage, heard, placed):
    video = tmp_path / "output" / "video" / "a.mp4"
    (tmp_path / "input" / "voices").mkdir(parents=True)
    written(tmp_path / "input" / "b.mp4", pan(0, 48))
    if heard:
        with wave.open(str(tmp_path / "input" / "voices" / "hello.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes(bytes(2 * round(heard * 16000)))
    script = "scene 2s [a]: A.\nspeak [a: voices/hello.wav]: B.\ncut 2s: C."
    found = stretches_of(script, 204, Fraction(24), False, footage, video)
    assert [one.kind for one in found] == [kind for kind, _ in placed]
    assert [one.start for one in found] == pytest.approx([start for _, start in placed], abs=1)


def test_a_film_in_which_somebody_speaks_has_its_mouth_measured(tmp_path: Path):
    frames, (sound, rate) = talking(4)
    before = np.random.default_rng(5).normal(0, 0.1, (1, 2 * rate)).astype(np.float32)  # of footage: nobody speaks
    film = [*pan(0, 50), *frames]
    inputs = {"script": "clip a.mp4 0s-2s\nspeak [anna: hello.wav]: She talks."}
    node = {"class_type": "SkyReelsFilm", "inputs": inputs}
    sounds = np.concatenate([before, sound], axis=1), rate
    found = of(written(tmp_path / "a.mp4", film, {"3": node}, rate=25, sound=sounds))
    assert found.lips.lag == pytest.approx(4, abs=1) and found.lips.confidence > 0.3
    assert len(found.lips.mouth) == len(film) and not any(found.lips.mouth[:50])
    plain = of(written(tmp_path / "b.mp4", film, rate=25, sound=sounds), script=inputs["script"])
    assert plain.lips.lag == found.lips.lag
    # A script from a connection stands not in the file: that is told.
    node["inputs"]["script"] = ["7", 0]
    assert "Mouths: no speech" in of(written(tmp_path / "c.mp4", film, {"3": node}, rate=25, sound=sounds)).left_out[-1]


def test_another_video_s_script_is_told(tmp_path: Path):
    with pytest.raises(InputError, match=r"makes 12\.00 s, but the video has 3\.00 s"):
        stretches_of("continue 12s: On.", 72, Fraction(24))
    with pytest.raises(InputError, match="makes 5\\.00 s, but the video has 8\\.00 s"):
        stretches_of("scene 5s [anna]: She comes.", 192, Fraction(24))
    with pytest.raises(InputError, match="Line 1"):
        stretches_of("cut 9s: Too long.", 72, Fraction(24))


def talking(late: int, count: int = 125, mouth: bool = True) -> tuple[list[np.ndarray], tuple[np.ndarray, int]]:
    """A face that nods and a mouth that follows words, so many frames late; the words as sound, 16 kHz, 25 a second."""
    chance = np.random.default_rng(3)
    words = np.convolve(chance.random(count + 40) > 0.7, np.hanning(7), "same")[:count].clip(0, 1)
    frames = []
    down, right = np.mgrid[: SIZE[1], : SIZE[0]]
    for index in range(count):
        frame = np.asarray(PHOTOGRAPHS[1])[60:156, 20:180].copy()
        x, y = 80 + 1.5 * np.sin(index / 9), 48 + np.cos(index / 7)
        frame[((right - x) / 34) ** 2 + ((down - y) / 44) ** 2 < 1] = (220, 180, 150)
        said = words[index - late] if 0 <= index - late < count else 0.0
        if mouth:
            frame[((right - x) / 11) ** 2 + ((down - y - 20) / (1 + 8 * said)) ** 2 < 1] = (90, 20, 30)
        frames.append(frame)
    sound = np.repeat(words, 640) * chance.normal(0, 0.1, count * 640)
    return frames, (sound[None].astype(np.float32), 16000)


@pytest.mark.parametrize("late", [-3, 0, 4])
def test_a_lag_of_the_mouth_is_found_within_a_frame(tmp_path: Path, late: int):
    frames, sound = talking(late)
    found = of(written(tmp_path / "a.mp4", frames, rate=25, sound=sound), speech="own")
    assert found.lips.lag == pytest.approx(late, abs=1) and found.lips.confidence > 0.3


@pytest.mark.parametrize("late", [-18, 18])
def test_a_lag_at_the_edge_of_the_search_is_none(tmp_path: Path, late: int):
    heard = np.sin(np.arange(200) / 15) + 1  # so slow that a lag beyond the edge is seen at it
    frames = [np.full((SIZE[1], SIZE[0], 3), round(100 + 40 * float(one)), np.uint8) for one in np.roll(heard, late)]
    sound = np.repeat(heard**2, 640) * np.random.default_rng(3).normal(0, 0.05, 200 * 640)
    found = of(
        written(tmp_path / "a.mp4", frames, rate=25, sound=(sound[None].astype(np.float32), 16000)), speech="own"
    )
    assert found.lips.at_edge and found.lips.lag is None and found.lips.confidence == 0
    assert "farthest lag that is tried, 15 frames" in found.left_out[-1]


def test_the_seams_of_a_talking_avatar_lie_at_its_windows(tmp_path: Path):
    inputs = {"window": 33, "motion": 5, "drop": 8}
    prompt = {
        "1": {"class_type": "SkyReelsTalkingAvatar", "inputs": inputs},
        "2": {"class_type": "SaveVideo", "inputs": {"video": ["1", 0]}},
    }
    frames = [*cast(pan(0, 45), 0.0), *cast(pan(0, 45, 45), 6.0)]  # the third window jumps, at 25 + 20
    found = of(written(tmp_path / "a.mp4", frames, prompt, rate=25))
    assert [roll.stretch.start for roll in found.rolls] == [0, 25, 45, 65]
    assert found.seam == found.rolls[2].seam.jump + found.rolls[2].seam.colour > 15
    assert found.rolls[1].seam.colour + found.rolls[3].seam.colour < 5 and found.faults is None
    assert found.drift == pytest.approx(6, rel=0.15)
    prompt["2"]["inputs"]["video"] = ["3", 0]  # what it went through is not known
    other = of(written(tmp_path / "b.mp4", frames, prompt, rate=25))
    assert other.seam is None and any("goes straight to Save Video" in one for one in other.left_out)


def test_where_nothing_follows_the_speech_no_lag_is_told(tmp_path: Path):
    frames, sound = talking(0, mouth=False)
    silent = written(tmp_path / "a.mp4", frames, rate=25)
    speech = written(tmp_path / "b.mp4", frames[:1] * len(frames), rate=25, sound=sound)
    found = of(silent, speech=str(speech))
    assert found.lips.lag is None and "no SyncNet" in found.left_out[-1] and "lag alone" not in found.left_out[-1]
    assert "has no sound" in of(silent, speech="own").left_out[-1]
    with pytest.raises(InputError, match=r"nothing\.wav cannot be read"):
        of(silent, speech=str(tmp_path / "nothing.wav"))


def tiny_clip(transformers):
    config = transformers.CLIPVisionConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=1, image_size=64, patch_size=16,
        projection_dim=32,
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.CLIPVisionModelWithProjection(config)


def test_likeness_is_that_of_the_network_from_a_file_and_a_folder(tmp_path: Path):
    import transformers
    from safetensors.torch import save_file

    model = tiny_clip(transformers)
    model.save_pretrained(tmp_path / "clip")
    save_file(
        {key: value.clone().half() for key, value in model.state_dict().items()}, tmp_path / "clip_vision.safetensors"
    )
    config = transformers.Dinov2Config(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=1, image_size=56, patch_size=14
    )
    transformers.Dinov2Model(config).save_pretrained(tmp_path / "dino")
    kinds = {}
    for name in ("clip", "clip_vision.safetensors", "dino"):
        network = open_network(tmp_path / name)
        same, other = likeness(network, PHOTOGRAPHS[:1], PHOTOGRAPHS)
        assert same == pytest.approx(1, abs=1e-3) and other < same - 1e-4
        kinds[name] = network.kind, other
    assert [kind for kind, _ in kinds.values()] == [CLIP, CLIP, DINO]
    (_, folder), (_, file) = kinds["clip"], kinds["clip_vision.safetensors"]
    assert file == pytest.approx(folder, abs=5e-3)
    save_file({"a": torch.zeros(1)}, tmp_path / "vae.safetensors")
    with pytest.raises(InputError, match=r"vae\.safetensors is no CLIP"):
        open_network(tmp_path / "vae.safetensors")


def test_takes_are_ranked_on_a_page_and_in_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv(CHOSEN, "1")
    good = written(tmp_path / "good take.mp4", extended())
    drifting = written(tmp_path / "drifting.mp4", extended(12.0))
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "script.txt").write_text(SCRIPT)
    picture = tmp_path / "anna.png"
    PHOTOGRAPHS[0].save(picture)
    videos = [str(tmp_path / name) for name in ("drifting.mp4", "broken.mp4", "good take.mp4")]
    given = [*videos, "--references", str(picture), "--script", str(tmp_path / "script.txt")]
    code = command.main([*given, "--sheet", str(tmp_path / "sheet.jpg")])
    said = capsys.readouterr()
    assert code == 1 and "broken.mp4 can't be opened" in said.err
    lines = [line for line in said.out.splitlines() if line.startswith("|")]
    assert "good take" in lines[2] and "drifting" in lines[3]
    assert "no CLIP or DINO weights" in said.out and said.out.count("plain search") == 1
    made = json.loads((tmp_path / "measured.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in made["videos"]] == ["good take", "drifting"]
    assert [row["place"] for row in made["videos"]] == [1, 2] and list(made["problems"]) == [videos[1]]
    values = made["videos"][0]["values"]
    assert set(values) == set(made["measures"]) and values["clip"] is None and values["cut_faults"] == 0
    page = (tmp_path / "measured.html").read_text(encoding="utf-8")
    assert page.count("<section") == 3 and 'src="good%20take.mp4"' in page and page.count("<svg") == 2
    assert good.is_file() and drifting.is_file()
    with Image.open(tmp_path / "sheet.jpg") as sheet:
        assert sheet.width > 1000 and sheet.height < 260


def test_what_cannot_be_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv(CHOSEN, "1")
    assert command.main([]) == 2 and "No video is named" in capsys.readouterr().err
    video = str(written(tmp_path / "a.mp4", pan(0, 30)))
    assert command.main([video, "--script", "scrpit.txt"]) == 2
    assert capsys.readouterr().err == "The script scrpit.txt is not there: give a text file, or the lines themselves.\n"
    assert command.main([video, "--references", str(tmp_path / "none.png")]) == 2
    assert "none.png cannot be read as a picture" in capsys.readouterr().err
    assert command.main([video]) == 0
    said = capsys.readouterr().out
    assert said.count("Left out. ") == 3 and "the video carries none; give it by --script" in said


def test_a_python_that_cannot_measure_says_what_to_do(tmp_path: Path):
    folder = registry_archive.write(tmp_path / "pack")
    asked = [sys.executable, "-S", "-E", folder / "tools" / "measure.py", "a.mp4"]
    there = {key: value for key, value in os.environ.items() if key != CHOSEN}
    done = subprocess.run(list(map(str, asked)), capture_output=True, text=True, env=there, timeout=60)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "make a venv for it once: python tools/measure.py --setup" in done.stderr
    assert ".venv" not in done.stderr
    own = Path(".venv", *(("Scripts", "python.exe") if os.name == "nt" else ("bin", "python")))
    (folder / own).parent.mkdir(parents=True)
    (folder / own).touch()
    done = subprocess.run(list(map(str, asked)), capture_output=True, text=True, env=there, timeout=60)
    assert f"run it with ComfyUI's Python or {own}, or make a venv" in done.stderr
