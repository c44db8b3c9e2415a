"""What the demo asks of every workflow: what is changed of it, and the video that it then makes, part by part."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from pack.dev.samples.workflow_inputs import Video
from pack.showcase import world
from pack.skyreels_v3.jobs.extension.plan import FPS
from pack.skyreels_v3.speech.recording import FPS as AVATAR_FPS
from pack.training.world.prompts import write


@dataclass(frozen=True)
class Part:
    """Frames of a video that were made at once. kind: source, new, cut or spoken."""

    kind: str
    frames: int


@dataclass(frozen=True)
class Demo:
    """How the demo runs a workflow.

    title: the job in two words.  look: what to look at, one sentence.  prompt: what the video is to show.
    inputs: files of `world.INPUTS`, in the order in which they are shown; a recording speaks after those before.
    changes: node type or title -> its inputs.  parts: of each video.  size: width, height of the videos.
    runs: for a workflow that is queued more than once, what the page changes each time, as in changes.
    """

    title: str
    look: str
    prompt: str
    inputs: tuple[str, ...]
    changes: dict[str, dict]
    parts: tuple[Part, ...]
    fps: int = FPS
    size: tuple[int, int] = (world.WIDTH, world.HEIGHT)
    runs: tuple[dict[str, dict], ...] = field(default=({},))

    @property
    def frames(self) -> int:
        return sum(part.frames for part in self.parts)

    @property
    def videos(self) -> tuple[Video, ...]:
        """What its files hold."""
        sound = any(part.kind == "spoken" for part in self.parts)
        return len(self.runs) * (Video(*self.size, Fraction(self.fps), self.frames, sound),)


# The sizes and lengths that the nano models were trained on.
SIZE = {"resolution": "custom", "width": world.WIDTH, "height": world.HEIGHT}
WINDOWS = {"window": 33, "motion": 5, "drop": 8}
PICTURES = {
    "Load Image: reference 1": {"image": f"{world.HERO}.png"},
    "Load Image: reference 2": {"image": f"{world.THING}.png"},
}
PICTURE_INPUTS = (f"{world.HERO}.png", f"{world.THING}.png")
REFERENCE = {**SIZE, "seconds": 1}
FIRST = Part("new", 25)
ON, CUT, SOURCE = Part("new", FPS), Part("cut", 2 * FPS), Part("source", world.SOURCE_FRAMES)


def spoken(prompt: str) -> dict:
    """Talking Avatar says one prompt in both passes: the official second one has words that the nano model lacks."""
    return {**SIZE, **WINDOWS, "prompt": prompt, "connection_prompt": prompt}


def reference(prompt: str) -> dict[str, dict]:
    return {"CLIPTextEncode": {"text": prompt}, "SkyReelsReferenceToVideo": REFERENCE, **PICTURES}


REFERENCE_DEMO = Demo(
    title="Reference to video",
    look="Who and what come from the pictures; what happens, where and when from the words.",
    prompt=world.by_pictures(world.SHOWN),
    inputs=PICTURE_INPUTS,
    changes=reference(world.by_pictures(world.SHOWN)),
    parts=(FIRST,),
)
SPEECH_PARTS = (Part("spoken", round(world.SPEECH * AVATAR_FPS)),)
AVATAR_DEMO = Demo(
    title="Talking avatar",
    look="The mouth follows the recording, and rests where it does.",
    prompt=write(world.SPEAKER),
    inputs=("speaker.png", "speech.wav"),
    changes={
        "Load Image: portrait": {"image": "speaker.png"},
        "LoadAudio": {"audio": "speech.wav"},
        "SkyReelsTalkingAvatar": spoken(write(world.SPEAKER)),
    },
    parts=SPEECH_PARTS,
    fps=AVATAR_FPS,
)
# The recording begins world.QUIET seconds into the footage, whose frames stay as they are before and behind it.
DUB_DEMO = Demo(
    title="Footage says something else",
    look="The mouth follows the new recording, and all but the head stays as it was.",
    prompt=write(world.SPEAKER),
    inputs=("footage.mp4", "speech.wav"),
    changes={
        "LoadVideo": {"file": "footage.mp4"},
        "LoadAudio": {"audio": "speech.wav"},
        "SkyReelsDubVideo": {
            **SIZE,
            **WINDOWS,
            "prompt": write(world.SPEAKER),
            "start": world.QUIET,
            "box": world.HEAD,
        },
    },
    parts=(Part("source", 10), Part("spoken", 81), Part("source", world.FOOTAGE_FRAMES - 91)),
    size=world.INPUT_SIZE,
)
STORY = world.story(world.SHOWN, world.SHOWN_CLOSER)
FILM = "\n".join(
    (
        f"scene 1s [anna, cafe]: {world.by_pictures(world.SHOWN)}",
        f"continue 1s: {write(world.SHOWN)}",
        f"cut 2s: {write(world.SHOWN_CLOSER, cut='ZOOM_IN_CUT')}",
        f"speak [anna]: {write(world.SHOWN_SPEAKER)}",
    )
)
WALK = "\n".join(3 * [f"continue 1s: {write(world.WALK)}"])
DIALOGUE = "anna: audio_1\npause 0.2s\nben: audio_2\npause 0.2s\ncarl: audio_3"
BATCH = [world.by_pictures(scene) for scene in (world.SHOWN, *world.ELSEWHERE)]
DEMOS: dict[str, Demo] = {
    "reference_to_video": REFERENCE_DEMO,
    "storyboard_extension": Demo(
        title="A clip goes on, with a cut",
        look="It goes on without a seam, then cuts to the same face, closer.",
        prompt=world.story(world.CLIP, world.CLOSER),
        inputs=("clip.mp4",),
        changes={
            "LoadVideo": {"file": "clip.mp4"},
            "SkyReelsExtendVideo": {**SIZE, "script": world.story(world.CLIP, world.CLOSER)},
        },
        parts=(SOURCE, ON, CUT, ON),
    ),
    "talking_avatar": AVATAR_DEMO,
    "dub_footage": DUB_DEMO,
    "talking_avatar_two_people": Demo(
        title="Two people talk",
        look="Each speaks with its own voice, one after the other; who listens keeps its mouth shut.",
        prompt=write(world.TALK),
        inputs=("talk.png", "left.wav", "right.wav"),
        changes={
            "Load Image: portrait": {"image": "talk.png"},
            "Load Audio: left": {"audio": "left.wav"},
            "Load Audio: right": {"audio": "right.wav"},
            "SkyReelsTalkingAvatar": spoken(write(world.TALK)),
        },
        parts=SPEECH_PARTS,
        fps=AVATAR_FPS,
    ),
    "dialogue": Demo(
        title="Three people talk",
        look="Each speaks their own lines; the two others listen.",
        prompt=DIALOGUE,  # the nano models know two people in a prompt, and here are three
        inputs=("table.png", "first.wav", "second.wav", "third.wav"),
        changes={
            "Load Image: portrait": {"image": "table.png"},
            "Load Audio: anna": {"audio": "first.wav"},
            "Load Audio: ben": {"audio": "second.wav"},
            "Load Audio: carl": {"audio": "third.wav"},
            "SkyReelsDialogue": {"script": DIALOGUE},
            "SkyReelsTalkingAvatar": {
                **spoken(write(world.TALK)),
                "width": world.TABLE_SIZE[0],
                "height": world.TABLE_SIZE[1],
            },
        },
        parts=SPEECH_PARTS,
        fps=AVATAR_FPS,
        size=world.TABLE_SIZE,
    ),
    "video_extension": Demo(
        title="A clip goes on",
        look="The walk goes on, and the beach with it.",
        prompt=WALK,
        inputs=("walk.mp4",),
        changes={"LoadVideo": {"file": "walk.mp4"}, "SkyReelsExtendVideo": {**SIZE, "script": WALK}},
        parts=(SOURCE, ON, ON, ON),
    ),
    "reference_extend_cut": Demo(
        title="Pictures to a story",
        look="Two pictures become a shot, which goes on and cuts to a face.",
        prompt=f"{world.by_pictures(world.SHOWN)}\n{STORY}",
        inputs=PICTURE_INPUTS,
        changes={**reference(world.by_pictures(world.SHOWN)), "SkyReelsExtendVideo": {**SIZE, "script": STORY}},
        parts=(FIRST, ON, CUT, ON),
    ),
    "short_film": Demo(
        title="A short film",
        look="Two pictures become a shot, which goes on, cuts to a face and speaks.",
        prompt=f"{world.by_pictures(world.SHOWN)}\n{STORY}\n{write(world.SHOWN_SPEAKER)}",
        inputs=(*PICTURE_INPUTS, "speech.wav"),
        changes={
            **reference(world.by_pictures(world.SHOWN)),
            "SkyReelsExtendVideo": {**SIZE, "script": STORY},
            "LoadAudio": {"audio": "speech.wav"},
            "SkyReelsTalkingAvatar": spoken(write(world.SHOWN_SPEAKER)),
        },
        # Speech at 25 frames a second becomes the film's 24.
        parts=(FIRST, ON, CUT, ON, Part("spoken", round(world.SPEECH * FPS))),
    ),
    "film": Demo(
        title="A film of one script",
        look="A clip, a scene of two pictures, which goes on, cuts to a face and speaks.",
        prompt=FILM,
        inputs=("clip.mp4", *PICTURE_INPUTS, "speech.wav"),
        changes={
            "Load Video: what the film begins with": {"file": "clip.mp4"},
            "Load Image: anna": {"image": f"{world.HERO}.png"},
            "Load Image: cafe": {"image": f"{world.THING}.png"},
            "Load Audio: the voice of anna": {"audio": "speech.wav"},
            "SkyReelsFilm": {**SIZE, "script": FILM},
        },
        parts=(SOURCE, ON, ON, CUT, Part("spoken", round(world.SPEECH * FPS))),
    ),
    "prompt_batch": Demo(
        title="A list of prompts",
        look="The same two pictures in three places, one job for each line.",
        prompt="\n".join(BATCH),
        inputs=PICTURE_INPUTS,
        changes={"SkyReelsPrompts": {"prompts": "\n".join(BATCH)}, "SkyReelsReferenceToVideo": REFERENCE, **PICTURES},
        runs=tuple({"SkyReelsPrompts": {"number": number + 1}} for number in range(len(BATCH))),
        parts=(FIRST,),
    ),
    "reference_to_video_low_vram": REFERENCE_DEMO,
    "talking_avatar_low_vram": AVATAR_DEMO,
}
# What `make demo` runs when it is not told otherwise: each job once.
MAIN = ("reference_to_video", "storyboard_extension", "talking_avatar", "talking_avatar_two_people")
