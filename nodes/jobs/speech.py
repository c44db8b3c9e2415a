"""Speech: recordings of one or two people become what an avatar hears, and the sound of its video."""

from comfy_api.latest import io

from ...skyreels_v3.speech.encoder import ENCODER
from ...skyreels_v3.speech.recording import FPS
from ...skyreels_v3.speech.speakers import Recording, in_turns, mixed
from .. import versions
from ..encoders.speech import Speech, SpeechType, encode_speech
from ..inputs.speakers import max_seconds_input

TOGETHER, TURNS = "together", "in turns"


class SpeechNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return versions.schema(
            node_id="SkyReelsSpeech",
            display_name="SkyReels-V3 Speech",
            description="Turns one recording, or one for each of two people, into what the talking avatar hears.",
            search_aliases=["wav2vec2", "audio to features", "talking avatar audio", "lip sync", "skyreels speech"],
            inputs=[
                io.AudioEncoder.Input("audio_encoder", tooltip=f"{ENCODER}."),
                io.Audio.Input(
                    "audio", tooltip="What the person says; of a pair, the left one. Any rate and channels."
                ),
                io.Audio.Input("audio_2", optional=True, tooltip="What the right one of a pair says."),
                io.Combo.Input(
                    "speakers",
                    options=[TOGETHER, TURNS],
                    default=TOGETHER,
                    tooltip="Two recordings from the start on, or the second after the first has ended.",
                ),
                io.Float.Input(
                    "delay",
                    default=0.0,
                    min=0.0,
                    max=600.0,
                    step=0.1,
                    tooltip="Seconds by which the second recording starts later than it would.",
                ),
                max_seconds_input(),
            ],
            outputs=[
                SpeechType.Output(display_name="speech", tooltip="For Talking Avatar and Avatar Window."),
                io.Audio.Output(display_name="audio", tooltip="The sound of the video: the recordings as they are."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, audio_encoder, audio, speakers, delay, max_seconds, audio_2=None) -> io.NodeOutput:
        recordings = [Recording(audio["waveform"], audio["sample_rate"])]
        if audio_2 is not None:
            second = Recording(audio_2["waveform"], audio_2["sample_rate"], delay)
            recordings = in_turns([*recordings, second], delay) if speakers == TURNS else [*recordings, second]
        features = encode_speech(audio_encoder, recordings, max_seconds)
        waveform, rate = mixed(recordings)
        speech = Speech(features, waveform, rate, max_seconds, audio_encoder)
        versions.tell(
            cls.hidden.unique_id,
            f"{speech.frames} frames at {FPS} a second, {speech.people} speaker{'s' if speech.people > 1 else ''}",
        )
        return io.NodeOutput(speech, {"waveform": waveform, "sample_rate": rate})
