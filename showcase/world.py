"""What the demo gives to the workflows: pictures, a clip and speech, drawn by `training/`, and what is asked of them.

One story: a fox and its balloon. Its pictures become a video, a clip of it goes on and cuts to its face, it speaks, and
it talks to a robot. Prompts are written from the same scenes, so they have no word that the nano models did not learn.
"""

import random
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
from PIL import Image

from pack.skyreels_v3.jobs.extension.plan import FPS
from pack.training.world.prompts import write
from pack.training.world.references import character_image, object_image
from pack.training.world.render import SIZE, render, render_clip
from pack.training.world.scenes import Actor, Scene, cut_scene
from pack.training.world.tables import Table
from pack.training.world.voices import RATE, say

WIDTH, HEIGHT = SIZE  # of the videos
LARGER = 4  # times that the inputs are: they are drawn, so they can be of any size, as an artist's are
INPUT_SIZE = (LARGER * WIDTH, LARGER * HEIGHT)
HERO, FRIEND, THING = "fox", "robot", "balloon"
SOURCE_FRAMES = 49
SPEECH, TURN = 3.4, 1.7  # seconds: the windows of 33 frames end there
QUIET = 0.4  # seconds of footage before what is dubbed
FOOTAGE_FRAMES = 102
LINE = 1.0  # seconds: of three people, with pauses of 0.2 s between them
TABLE = Table((HERO, FRIEND, "pirate"))
TABLE_SIZE = (144, 96)  # of the video: three heads of which each is more than a token

# Who and what is shown say the pictures, all the rest the prompt.
SHOWN = Scene((Actor(HERO, "waves", THING),), "snow", shot="medium", subject=HERO, seed=3)
SHOWN_CLOSER = cut_scene(SHOWN, "ZOOM_IN_CUT")
SHOWN_SPEAKER = replace(SHOWN_CLOSER, actors=(Actor(HERO, "talks", THING),))
ELSEWHERE = tuple(replace(SHOWN, place=place, time=time) for place, time in (("beach", "day"), ("space", "night")))
CLIP = Scene((Actor(HERO, "waves", THING),), "forest", shot="medium", subject=HERO, seed=5)
CLOSER = cut_scene(CLIP, "ZOOM_IN_CUT")
WALK = Scene((Actor(HERO, "walks right", THING),), "beach", "day", shot="medium", subject=HERO, seed=2)
SPEAKER = Scene((Actor(HERO, "talks"),), "stage", shot="medium", subject=HERO, seed=4)
HEAD = "0.28, 0, 0.72, 0.72"  # of the speaker, in all of the footage
TALK = Scene((Actor(HERO, "talks"), Actor(FRIEND, "talks")), "beach", seed=6)


def by_pictures(scene: Scene) -> str:
    """The prompt of a scene whose character and object are given as pictures."""
    return write(scene, unnamed=(HERO, THING))


def story(scene: Scene, closer: Scene) -> str:
    """A script that goes on, cuts to a face and goes on there."""
    return "\n".join(
        (
            f"continue 1s: {write(scene)}",
            f"cut 2s: {write(closer, cut='ZOOM_IN_CUT')}",
            f"continue 1s: {write(closer)}",
        )
    )


def _picture(draw: Callable[[], np.ndarray]) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(draw()).save(path)


def _portrait(scene: Scene) -> Callable[[Path], None]:
    """The first picture of people who are silent."""
    return _picture(lambda: render(scene, 0.0, INPUT_SIZE, (0.0, 0.0)))


def _clip(scene: Scene, frames: int = SOURCE_FRAMES) -> Callable[[Path], None]:
    def save(path: Path) -> None:
        with av.open(str(path), "w") as file:
            stream = file.add_stream("libx264", rate=FPS, options={"crf": "12"})
            stream.width, stream.height = INPUT_SIZE
            stream.pix_fmt = "yuv420p"
            for pixels in render_clip(scene, frames, FPS, size=INPUT_SIZE):
                file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            file.mux(stream.encode(None))

    return save


def _speech(voice: str, seconds: float, seed: int, pause: tuple[float, float] | None = None) -> Callable[[Path], None]:
    """pause: from, to in seconds, in which nobody speaks."""

    def save(path: Path) -> None:
        turns = [(0.15, pause[0]), (pause[1], seconds - 0.1)] if pause else None
        samples = (say(voice, seconds, seed, turns).wave * 32767).astype("<i2")
        with wave.open(str(path), "wb") as file:
            file.setparams((1, 2, RATE, 0, "NONE", ""))
            file.writeframes(samples.tobytes())

    return save


# Files in input/.
INPUTS: dict[str, Callable[[Path], None]] = {
    f"{HERO}.png": _picture(lambda: character_image(SHOWN, 0, random.Random(3), INPUT_SIZE)),
    f"{THING}.png": _picture(lambda: object_image(THING, random.Random(1), INPUT_SIZE)),
    "clip.mp4": _clip(CLIP),
    "walk.mp4": _clip(WALK),
    "footage.mp4": _clip(SPEAKER, FOOTAGE_FRAMES),
    "speaker.png": _portrait(SPEAKER),
    "talk.png": _portrait(TALK),
    "table.png": _picture(lambda: TABLE.render(size=INPUT_SIZE)),
    "first.wav": _speech(TABLE.names[0], LINE, 18),
    "second.wav": _speech(TABLE.names[1], LINE, 161),
    "third.wav": _speech(TABLE.names[2], LINE, 7),
    "speech.wav": _speech(HERO, SPEECH, 18, pause=(1.4, 2.1)),
    "left.wav": _speech(HERO, TURN, 88),
    "right.wav": _speech(FRIEND, TURN, 161),
}


def draw_inputs(folder: Path) -> None:
    """Write every input into a folder, ComfyUI's `input`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, save in INPUTS.items():
        save(folder / name)
