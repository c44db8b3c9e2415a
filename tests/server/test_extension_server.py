"""Extend Video in a running ComfyUI: what it says on the way, interrupts, kill -9, odd clips and wrong scripts."""

import json
import re
import shutil
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from pack.dev.comfyui.server import Interrupted, NodeFailed, Server, ServerError
from pack.dev.samples import workflow_inputs
from pack.tests.support import video_clips
from pack.tools.batching.workflow import to_prompt

CLIP = "numbered.mp4"
FRAMES = 30  # of the clip
TINY = {"resolution": "custom", "width": 80, "height": 32}
ROLLS = 4
STORY = "\n".join(
    (
        "continue 0.2s: She walks on.",
        "cut 2s: [ZOOM_IN_CUT] Her face.",
        "continue 0.2s: She smiles.",
        "continue 0.2s: She looks up.",
    )
)
NEW = (5, 48, 5, 5)  # frames of its rolls
STEPS = 20
JOBS = Path("output") / "skyreels_v3_jobs"


def put_clip(base: Path, name: str = CLIP, frames: int = FRAMES, **how) -> None:
    path = base / "input" / name
    if not path.exists():
        time = np.arange(48000) / 48000
        video_clips.clip(path, frames, sound=(np.sin(440 * 2 * np.pi * time, dtype=np.float32)[None], 48000), **how)


def prompt(server: Server, script: str = STORY, file: str = CLIP, **inputs) -> dict:
    """The storyboard workflow with a tiny video; an input that is None is left out."""
    put_clip(server.base)
    workflow = json.loads(workflow_inputs.workflow_files()["storyboard_extension"].read_text(encoding="utf-8"))
    changes = {"LoadVideo": {"file": file}, "SkyReelsExtendVideo": {**TINY, "steps": STEPS, "script": script, **inputs}}
    made = workflow_inputs.changed(to_prompt(workflow, server.object_info()), changes)
    node = extend(made)
    node["inputs"] = {name: value for name, value in node["inputs"].items() if value is not None}
    return made


def extend(prompt: dict) -> dict:
    (node,) = [node for node in prompt.values() if node["class_type"] == "SkyReelsExtendVideo"]
    return node


def result(server: Server, entry: dict) -> tuple[np.ndarray, str]:
    """The frames of the saved video, uint8 [F, H, W, 3], and the report."""
    (path,) = server.output_files(entry)
    with av.open(str(path)) as file:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)])
    (report,) = [output["text"][0] for output in entry["outputs"].values() if "text" in output]
    return frames, report


def texts(events: list[dict]) -> list[str]:
    return [event["data"]["text"] for event in events if event["type"] == "text"]


def preview_size(message: bytes) -> tuple[int, int]:
    """Pixels of the JPEG in a preview's message."""
    return Image.open(BytesIO(message[message.index(b"\xff\xd8") :])).size


def until(server: Server, prompt: dict, said: str, steps: int):
    """Yields the events of a run up to `steps` steps after a text that begins with `said`, then the rest."""
    heard, left = False, steps
    for event in server.events(prompt):
        heard = heard or (event["type"] == "text" and event["data"]["text"].startswith(said))
        left -= heard and event["type"] == "progress"
        yield event, heard and left <= 0


@pytest.fixture(scope="module")
def undisturbed(stocked_server: Server) -> np.ndarray:
    """The frames of the story, made in one go."""
    events = list(stocked_server.events(prompt(stocked_server)))
    said = texts(events)
    assert any("4 rolls of 20 steps" in text and "[ZOOM_IN_CUT] Her face." in text for text in said), "no plan"
    for number in range(1, ROLLS + 1):
        left = ", about .* left" if number > 1 else ".*"  # what is not measured yet is not guessed
        assert any(re.match(f"roll {number} of {ROLLS}{left}: ", text) for text in said), said
    sizes = [preview_size(event["data"]) for event in events if event["type"] == "preview"]
    assert len(sizes) >= ROLLS and len({width for width, _ in sizes}) == 1
    assert sizes[0][1] < sizes[-1][1], "finished rolls stand below the one that is made"
    steps = [event["data"] for event in events if event["type"] == "progress"]
    assert {step["max"] for step in steps} == {ROLLS * STEPS}, "one bar for the whole job"
    values = [step["value"] for step in steps]
    assert values == sorted(values) and values[-1] == ROLLS * STEPS
    frames, report = result(stocked_server, stocked_server.wait(events[-1]["data"]["prompt_id"]))
    assert len(frames) == FRAMES + sum(NEW)
    assert report.splitlines()[0].startswith("80 x 32 pixels, 63 new frames")
    assert f"0 of {ROLLS} rolls were made before" in report
    return frames


def test_the_source_stays_and_the_seam_is_where_it_ends(undisturbed: np.ndarray):
    assert video_clips.numbers_of(undisturbed[:FRAMES]) == list(range(FRAMES))
    colour = undisturbed.astype(float).std(axis=-1).mean(axis=(1, 2))  # the clip is grey, what random weights make not
    assert colour[:FRAMES].max() < 5 and colour[FRAMES:].min() > 20


def test_an_interrupted_job_goes_on_with_the_next_roll(stocked_server: Server, undisturbed: np.ndarray):
    shutil.rmtree(stocked_server.base / JOBS)
    asked, events = False, []
    for event, now in until(stocked_server, prompt(stocked_server, STORY + "\n# again"), "roll 2 of 4", 3):
        events.append(event)
        if now and not asked:
            asked = True
            stocked_server.interrupt()
    assert events[-1]["type"] == "execution_interrupted"
    with pytest.raises(Interrupted):
        stocked_server.wait(events[-1]["data"]["prompt_id"])
    (so_far,) = stocked_server.base.joinpath(JOBS).rglob("so_far.mp4")
    assert workflow_inputs.probe(so_far).frames == FRAMES + NEW[0]
    assert str(so_far) in stocked_server.log

    entry = stocked_server.run(prompt(stocked_server, STORY + "\n# again"))
    frames, report = result(stocked_server, entry)
    assert f"1 of {ROLLS} rolls were made before" in report
    assert np.array_equal(frames, undisturbed)


@pytest.mark.workshop
def test_a_killed_server_loses_only_the_roll_it_met(stocked_server: Server, undisturbed: np.ndarray):
    """`make test` kills one for an avatar (test_avatar_server.py)."""
    shutil.rmtree(stocked_server.base / JOBS)
    story = prompt(stocked_server, STORY + "\n# killed")
    # In the middle of sampling, and right after a roll's end: while its piece is written or the next one is encoded.
    for said, steps in (("roll 2 of 4", 4), ("roll 3 of 4", 0)):
        with pytest.raises(ServerError, match=r"No message|ended"):
            for _, now in until(stocked_server, story, said, steps):
                if now and stocked_server.process is not None:
                    stocked_server.kill()
        stocked_server.start()
    frames, report = result(stocked_server, stocked_server.run(story))
    assert f"2 of {ROLLS} rolls were made before" in report
    assert np.array_equal(frames, undisturbed)


def test_a_changed_last_line_keeps_the_rolls_before_it(stocked_server: Server, undisturbed: np.ndarray):
    frames, report = result(stocked_server, stocked_server.run(prompt(stocked_server, STORY.replace("up.", "down."))))
    assert f"3 of {ROLLS} rolls were made before" in report
    assert np.array_equal(frames[:-5], undisturbed[:-5]) and not np.array_equal(frames[-5:], undisturbed[-5:])


# Clips of any kind: each works, or gives one sentence; and the server goes on.

ON = "continue 0.1s: On."


def clip_97x55(path: Path) -> None:
    video_clips.clip(path, 70, "60000/1001", size=(97, 55), pix_fmt="yuv444p")


def clip_1_frame(path: Path) -> None:
    video_clips.clip(path, 1)


def clip_animated_webp(path: Path) -> None:
    pictures = [Image.fromarray(video_clips.numbered(number)) for number in range(20)]
    pictures[0].save(path, "WEBP", save_all=True, append_images=pictures[1:], duration=41)


def clip_truncated(path: Path) -> None:
    whole = video_clips.clip(path, 60).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def clip_sound_only(path: Path) -> None:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("make", "video"),
    [
        (clip_97x55, workflow_inputs.Video(80, 32, Fraction(60000, 1001), 70 + 5)),
        (clip_animated_webp, workflow_inputs.Video(80, 32, Fraction(24), 20 + 2)),
        (clip_1_frame, workflow_inputs.Video(80, 32, Fraction(24), 1 + 2)),
    ],
)
def test_odd_clips_work(stocked_server: Server, make, video: workflow_inputs.Video):
    file = f"{make.__name__}.mp4"
    make(stocked_server.base / "input" / file)
    (path,) = stocked_server.output_files(stocked_server.run(prompt(stocked_server, ON, file, steps=1)))
    assert workflow_inputs.probe(path) == video


def refused(server: Server, bad: dict, words: str) -> None:
    """Assert that Extend Video ends a prompt with one sentence that `words` (a pattern) fits."""
    with pytest.raises(NodeFailed) as caught:
        server.run(bad)
    failed = caught.value
    assert failed.node_type == "SkyReelsExtendVideo"
    assert failed.exception_type.endswith("InputError")
    assert re.search(words, failed.exception_message)
    assert failed.exception_message.endswith((".", ".`")) and "\n" not in failed.exception_message


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (clip_truncated, "^The video clip_truncated.mp4 can't be opened as a video; it is cut off"),
        (clip_sound_only, "^The video clip_sound_only.mp4 has sound but no picture"),
    ],
)
def test_clips_without_a_picture_are_told(stocked_server: Server, make, words: str):
    file = f"{make.__name__}.mp4"
    make(stocked_server.base / "input" / file)
    refused(stocked_server, prompt(stocked_server, ON, file), words)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("", "^The script is empty, .*continue 5s: "),
        (
            "continue 0s: On.\n\ncut 9s: Her face.\ncontinue 1s:",
            r"^Line 1 is 0s long.* Line 3 is a cut of 9 s.* Line 4 ",
        ),
        ("continue 5s She walks on.", "^Line 1 has no colon after its length"),
        ("wait 5s: She waits.", "^Line 1 begins with 'wait'"),
    ],
)
def test_a_wrong_script_is_told_with_its_lines(stocked_server: Server, script: str, words: str):
    refused(stocked_server, prompt(stocked_server, script), words)


def test_models_that_do_not_fit_are_told(stocked_server: Server):
    refused(
        stocked_server,
        prompt(stocked_server, shot_model=None),
        "^Line 2 .* nothing is connected to shot_model",
    )
    refused(stocked_server, prompt(stocked_server, model=None), "^Line 1 continues .* nothing is connected to model")
    swapped = prompt(stocked_server)
    inputs = extend(swapped)["inputs"]
    inputs["model"], inputs["shot_model"] = inputs["shot_model"], inputs["model"]
    refused(stocked_server, swapped, "^The model at model does the shot job, .*the two are swapped")
    other = prompt(stocked_server)
    other[extend(other)["inputs"]["model"][0]]["inputs"]["model"] = "SkyReels-V3-R2V-14B/transformer/"
    refused(stocked_server, other, "^The model at model does the reference job, but extension is needed there")


def test_after_all_that_a_video_is_made(stocked_server: Server):
    assert stocked_server.output_files(stocked_server.run(prompt(stocked_server, ON, seed=9, steps=1)))


def test_a_video_that_was_deleted_is_put_together_again(stocked_server: Server, undisturbed: np.ndarray):
    """As by a second server's start, or by hand: ComfyUI still holds the node's result and would ask for the file."""
    stocked_server.run(prompt(stocked_server))
    for path in stocked_server.base.joinpath(JOBS).rglob("video-*.mp4"):
        path.unlink()
    shutil.rmtree(stocked_server.base / "temp", ignore_errors=True)
    again = prompt(stocked_server)
    (save,) = [node for node in again.values() if node["class_type"] == "SaveVideo"]
    save["inputs"]["filename_prefix"] = "video/again"
    frames, report = result(stocked_server, stocked_server.run(again))
    assert np.array_equal(frames, undisturbed) and f"{ROLLS} of {ROLLS} rolls were made before" in report
