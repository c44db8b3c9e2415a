"""Dub Video: a person in real footage says something else; all but the head stays as it is."""

from comfy_api.latest import io

from ...skyreels_v3.jobs.avatar.plan import KEY_COPIES, Timing
from ...skyreels_v3.jobs.dub.prepare import STRENGTH, Asked
from ...skyreels_v3.recipes import RECIPES, Job
from .. import versions
from ..encoders.speech import SpeechType
from ..inputs.avatar import avatar_sampling_inputs, model_inputs, timing_inputs
from ..inputs.sampling import codec_input
from ..inputs.size import chosen_size, size_inputs
from ..inputs.source import frame_rate_input, source_of
from ..runs.avatar import AvatarModels, Sampling
from ..runs.dub import DubRequest, DubRun
from ..runs.identity import Node, upstream
from ..runs.results import hand_out, lost_results
from .talking_avatar import CONNECTION, check_avatar


class DubVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return versions.schema(
            node_id="SkyReelsDubVideo",
            display_name="SkyReels-V3 Dub Video",
            description="Gives a person in real footage another recording: the head is made anew where it is heard, "
            "and every pixel outside of the mask stays the footage's. After an interrupt or a crash, queue the same "
            "graph again: it goes on with the next part. Other footage, another recording, mask or box, "
            "prompt, model, seed or setting makes all anew.",
            search_aliases=["dub", "dubbing", "lip sync video", "video to video lipsync", "infinitetalk", "latentsync"],
            inputs=[
                *model_inputs(),
                io.MultiType.Input(
                    "source",
                    types=[io.Video, io.Image],
                    tooltip="The footage: a VIDEO, or frames as IMAGE. Any size, rate and length; its rate stays.",
                ),
                SpeechType.Input("speech", tooltip="From SkyReels-V3 Speech: what one person says instead."),
                io.Float.Input(
                    "start",
                    default=0.0,
                    min=0.0,
                    max=36000.0,
                    step=0.01,
                    tooltip="Seconds into the footage at which the recording begins. What comes before it, and behind "
                    "its end, is copied.",
                ),
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default=CONNECTION,
                    tooltip="Who speaks and how; the model was made with this sentence.",
                ),
                io.Float.Input(
                    "strength",
                    default=STRENGTH,
                    min=0.05,
                    max=1.0,
                    step=0.01,
                    tooltip="1 makes the head anew between the frames it is given. Less starts from the footage under "
                    "so much noise, so that more of it stays, its old words too. The model's own steps begin at 1, "
                    "0.96 and 0.85.",
                ),
                io.Float.Input(
                    "context",
                    default=2.0,
                    min=1.0,
                    max=8.0,
                    step=0.1,
                    tooltip="How many times as wide as the head the part is that the model sees: hair, neck and "
                    "shoulders help it, a tight one has more detail.",
                ),
                io.Float.Input(
                    "feather",
                    default=0.1,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    tooltip="Width of the soft edge, as a share of the head's size. It lies inside of the mask.",
                ),
                io.Float.Input(
                    "original_sound",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How loud the footage's own sound stays under the recording; 0 replaces it there. Before "
                    "and behind the recording it stays as it is.",
                ),
                *size_inputs("what the model sees of the footage"),
                *avatar_sampling_inputs("the prompt"),
                *timing_inputs(
                    "Frames a window is shown of what comes before it",
                    "Last frames of a window that are left out where the recording goes on: they go over into the "
                    "footage, with its old words.",
                    least_window=17,
                    least_drop=KEY_COPIES,
                ),
                codec_input(),
                frame_rate_input(),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Where the head is: one mask, or one for each frame, from any node that finds heads or "
                    "faces. Outside of it nothing is changed. Without it the box, without both the whole picture.",
                ),
                io.String.Input(
                    "box",
                    default="",
                    optional=True,
                    tooltip="Instead of a mask: left, top, right, bottom of the head's place, each from 0 to 1 of the "
                    "picture, such as 0.3, 0.1, 0.6, 0.7. The button below draws it in the footage.",
                ),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="The whole footage at its own size and rate."),
                io.Image.Output(display_name="last_frames", tooltip="Its last frames: for the start of something new."),
                io.String.Output(display_name="report", tooltip="What was made, part by part."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs):
        return lost_results()

    @classmethod
    def execute(cls, model, clip, vae, clip_vision, source, speech, start, prompt, strength, frame_rate, **rest):
        check_avatar(model)
        sampling = Sampling(rest["steps"], rest["shift"], rest["text_guidance"], rest["audio_guidance"])
        request = DubRequest(
            source=source_of(source, frame_rate),
            speech=speech,
            asked=Asked(
                start=start,
                mask=rest.get("mask"),
                box=rest.get("box", ""),
                feather=rest["feather"],
                context=rest["context"],
                size=chosen_size(rest["resolution"], rest["width"], rest["height"]),
                timing=Timing(rest["window"], rest["motion"], rest["drop"]),
                as_stored=not versions.turns_frames(),
            ),
            prompt=prompt,
            negative=(rest["negative"].strip() or RECIPES[Job.AVATAR].negative) if sampling.needs_negative else "",
            strength=strength,
            under=rest["original_sound"],
            seed=rest["seed"],
            sampling=sampling,
            codec=rest["codec"],
        )
        inputs = upstream(cls.hidden.prompt, cls.hidden.unique_id, ("model", "clip", "vae", "clip_vision"))
        node = Node(cls.hidden.unique_id, inputs)
        path, last, report = DubRun(node, AvatarModels(model, clip, vae, clip_vision), request).run()
        return io.NodeOutput(hand_out(path), last, report)
