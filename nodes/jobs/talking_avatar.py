"""Talking Avatar: a portrait and speech become a finished video with its sound, minutes long."""

from comfy_api.latest import io

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.jobs.avatar.passes import Settings
from ...skyreels_v3.jobs.avatar.plan import Timing
from ...skyreels_v3.recipes import RECIPES, Job
from .. import versions
from ..encoders.speech import SpeechType
from ..inputs.avatar import avatar_sampling_inputs, model_inputs, timing_inputs
from ..inputs.sampling import codec_input
from ..inputs.size import chosen_size, size_inputs
from ..inputs.speakers import DEFAULT_MAP, chosen_map, chosen_places, place_inputs
from ..network.model import skyreels_model
from ..runs.avatar import AvatarModels, AvatarRequest, AvatarRun, Sampling, Texts
from ..runs.identity import Node, upstream
from ..runs.results import hand_out, lost_results

CONNECTION = "a person is talking"


def check_avatar(model) -> None:
    """Raises InputError for a model of another loader or job."""
    job = skyreels_model(model).job
    if job is not Job.AVATAR:
        raise InputError(
            f"The model does the {job.value} job, but a talking avatar needs the A2V checkpoint: load that with "
            "SkyReels-V3 Load Model."
        )


class TalkingAvatar(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return versions.schema(
            node_id="SkyReelsTalkingAvatar",
            display_name="SkyReels-V3 Talking Avatar",
            description="A portrait speaks, for minutes, in sync with a recording. After an interrupt or a crash, "
            "queue the same graph again: it goes on with the next window. Another portrait, recording, prompt, model, "
            "seed, size or setting makes all anew.",
            search_aliases=["a2v", "talking head", "lip sync", "infinitetalk", "multitalk", "speech to video"],
            inputs=[
                *model_inputs(),
                io.Image.Input("portrait", tooltip="The person, or all who speak. Of a batch the first image counts."),
                SpeechType.Input("speech", tooltip="From SkyReels-V3 Speech, or Dialogue."),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="A woman talks to the camera, natural gestures.",
                    tooltip="Who speaks and how; it shapes the key frames that the whole video goes by.",
                ),
                io.String.Input(
                    "connection_prompt",
                    default=CONNECTION,
                    tooltip="The prompt of the windows between the key frames; the model was made with this sentence.",
                ),
                *size_inputs("the portrait"),
                *avatar_sampling_inputs("the prompts"),
                io.Float.Input(
                    "colour_match",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How far every frame takes the portrait's colours, so that they do not drift.",
                ),
                *timing_inputs(
                    "Frames a window is shown of the one before",
                    "Last frames of a window that are left out: they stand still on the key frame.",
                ),
                codec_input(),
                *place_inputs(),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="With the recording, at its own rate and channels."),
                io.Image.Output(display_name="last_frames", tooltip="The last frames: for the start of something new."),
                io.String.Output(display_name="report", tooltip="What was made, window by window."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs):
        return lost_results()

    @classmethod
    def execute(cls, model, clip, vae, clip_vision, portrait, speech, prompt, connection_prompt, **rest):
        check_avatar(model)
        sampling = Sampling(rest["steps"], rest["shift"], rest["text_guidance"], rest["audio_guidance"])
        negative = (rest["negative"].strip() or RECIPES[Job.AVATAR].negative) if sampling.needs_negative else ""
        masks, boxes = chosen_places(rest, speech.people, speech.names)
        request = AvatarRequest(
            portrait=portrait,
            speech=speech,
            texts=Texts(prompt, connection_prompt, negative),
            masks=masks,
            boxes=boxes,
            position_map=chosen_map(rest.get("position_map", DEFAULT_MAP), speech.people),
            size=chosen_size(rest["resolution"], rest["width"], rest["height"]),
            timing=Timing(rest["window"], rest["motion"], rest["drop"]),
            settings=Settings(rest["seed"], rest["colour_match"]),
            sampling=sampling,
            codec=rest["codec"],
        )
        inputs = upstream(cls.hidden.prompt, cls.hidden.unique_id, ("model", "clip", "vae", "clip_vision"))
        node = Node(cls.hidden.unique_id, inputs)
        path, last, report = AvatarRun(node, AvatarModels(model, clip, vae, clip_vision), request).run()
        return io.NodeOutput(hand_out(path), last, report)
