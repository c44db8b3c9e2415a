"""Dialogue: a script of who says what becomes speech with names and times, its sound, and a picture of the turns."""

import numpy as np
import torch
from comfy_api.latest import io, ui

from ...skyreels_v3.jobs.dialogue.script import SOUNDS, named_files, parse_dialogue
from ...skyreels_v3.recipes import MAX_PEOPLE
from ...skyreels_v3.speech.encoder import ENCODER
from ...skyreels_v3.speech.recording import FPS
from ...skyreels_v3.speech.timeline import timeline
from .. import versions
from ..encoders.speech import Speech, SpeechType, encode_dialogue
from ..inputs.dialogue import heard_of
from ..inputs.files import stamps
from ..inputs.speakers import max_seconds_input

SCRIPT = """\
anna: hello.wav
pause 0.4s
ben: answer.wav
anna + ben: laugh.wav"""
INPUTS = [f"audio_{number}" for number in range(1, SOUNDS + 1)]


class DialogueNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        audios = [
            io.Audio.Input(
                name,
                optional=True,
                tooltip=f"A recording that lines name, as in anna: {name}; of a node that speaks text, or any other.",
            )
            for name in INPUTS
        ]
        return versions.schema(
            node_id="SkyReelsDialogue",
            display_name="SkyReels-V3 Dialogue",
            description=f"Turns a script of who says what into what the talking avatar hears: up to {MAX_PEOPLE} "
            "people in one picture, in turns or two at once, each with a name.",
            search_aliases=["conversation", "multitalk", "several speakers", "podcast", "who speaks", "turns", "tts"],
            inputs=[
                io.AudioEncoder.Input("audio_encoder", tooltip=f"{ENCODER}."),
                io.String.Input(
                    "script",
                    multiline=True,
                    default=SCRIPT,
                    tooltip="One line for each recording: `anna: hello.wav` (of the input folder), `ben: audio_1`, "
                    "`anna + ben: laugh.wav 0s-1.5s`. Each begins where those before it end; `pause 0.4s` waits, "
                    "`pause -0.3s` begins earlier. Lines of times alone, `anna: 0s-3.2s`, are parts of recording. "
                    "Lines that begin with # are comments.",
                ),
                max_seconds_input(),
                *audios,
                io.Audio.Input(
                    "recording",
                    optional=True,
                    tooltip="One recording of all who speak, for scripts whose lines are times of it.",
                ),
            ],
            outputs=[
                SpeechType.Output(
                    display_name="speech", tooltip="For Talking Avatar, Avatar Window and Cast, with names."
                ),
                io.Audio.Output(display_name="audio", tooltip="The sound of the video: all recordings, mixed."),
                io.Image.Output(display_name="timeline", tooltip="Who speaks when, each in the colour of their box."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs):
        # ComfyUI sees a file's name alone: another file of that name is another dialogue.
        return stamps(named_files(str(inputs.get("script") or "")))

    @classmethod
    def execute(cls, audio_encoder, script, max_seconds, recording=None, **sounds) -> io.NodeOutput:
        dialogue = parse_dialogue(script)
        heard = heard_of(dialogue, sounds, recording, max_seconds)
        people = len(dialogue.names)
        features = encode_dialogue(audio_encoder, heard.recordings, heard.turns, people, heard.seconds, max_seconds)
        speech = Speech(
            features, *heard.mix, max_seconds, audio_encoder, names=dialogue.names, turns=tuple(heard.turns)
        )
        picture = np.asarray(timeline(dialogue.names, heard.turns, heard.recordings, heard.seconds))
        image = torch.from_numpy(picture.astype(np.float32) / 255)[None]
        count = f"{people} speakers: " if people > 1 else ""
        versions.tell(
            cls.hidden.unique_id,
            f"{speech.frames} frames at {FPS} a second, {count}{', '.join(dialogue.names)}",
        )
        audio = {"waveform": heard.mix[0], "sample_rate": heard.mix[1]}
        return io.NodeOutput(speech, audio, image, ui=ui.PreviewImage(image, cls=cls))
