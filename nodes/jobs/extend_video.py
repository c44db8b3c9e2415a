"""Extend Video: a clip and a script become one finished video, roll after roll, shot after shot."""

from fractions import Fraction

import comfy.samplers
from comfy_api.latest import io

from ...skyreels_v3.images.convert import tail_to_signed, to_image
from ...skyreels_v3.jobs.extension.plan import FPS, PREFIX_FRAMES
from ...skyreels_v3.jobs.extension.roll import Settings
from ...skyreels_v3.jobs.extension.script import MAX_SECONDS, parse_script
from ...skyreels_v3.recipes import RECIPES, Job
from .. import versions
from ..inputs.conditioning import clip_input, vae_input
from ..inputs.sampling import (
    codec_input,
    guidance_input,
    negative_input,
    seed_input,
    shift_input,
    steps_input,
)
from ..inputs.size import chosen_size, size_inputs
from ..inputs.source import fit_input, frame_rate_input, source_input, source_of
from ..runs.extension import ENTRIES, UNIPC, ExtensionModels, ExtensionRequest, ExtensionRun, Sampling
from ..runs.identity import Node, upstream
from ..runs.results import hand_out, lost_results

JOINED, NEW_ONLY = "source + new", "new only"
AS_SOURCE = "as the source"
SCRIPT = "continue 5s: She walks on, the camera follows her.\ncut 4s: [ZOOM_IN_CUT] Close-up of her face."


class ExtendVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        recipe = RECIPES[Job.EXTENSION]
        return versions.schema(
            node_id="SkyReelsExtendVideo",
            display_name="SkyReels-V3 Extend Video",
            description="Goes on from a video, shot by shot, as a script says, and gives one finished video. After "
            "an interrupt or a crash, queue the same graph again: it goes on with the next roll. A changed line makes "
            "anew that line and those behind it; another source, encoder, seed, size or setting makes all anew.",
            search_aliases=["v2v", "video extension", "extend video", "long video", "storyboard", "shot switching"],
            inputs=[
                clip_input("Each line of the script is encoded once."),
                vae_input(),
                source_input(),
                io.String.Input(
                    "script",
                    multiline=True,
                    default=SCRIPT,
                    tooltip="One line for each shot: `continue 8s: what happens next` (any length) or `cut 4s: "
                    "[ZOOM_IN_CUT] the new shot` (2 to 5 s). Without a keyword a line is a cut if it begins with a "
                    f"[..._CUT] tag. Lines that begin with # are comments. At most {MAX_SECONDS} s in all.",
                ),
                *size_inputs("the source"),
                fit_input(),
                seed_input("Of the noise; the same for every roll, as officially."),
                steps_input(recipe, f"The models are distilled for {recipe.steps}."),
                shift_input(
                    recipe,
                    f"Above 1 spends more of the steps on layout and motion; the models are made for {recipe.shift:g}.",
                ),
                io.Combo.Input(
                    "sampler",
                    options=[UNIPC, *comfy.samplers.SAMPLER_NAMES],
                    default=UNIPC,
                    tooltip="The official solver, or any of ComfyUI's.",
                ),
                guidance_input("guidance", "Above 1 follows the prompt harder and uses negative; twice the time."),
                negative_input(recipe),
                io.Float.Input(
                    "colour_anchor",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Draws the colours of every roll back to the first frame of its shot, so that they do not "
                    "walk away over many rolls. 0: off, as officially.",
                ),
                io.Combo.Input(
                    "output",
                    options=[JOINED, NEW_ONLY],
                    default=JOINED,
                    tooltip="The source with what is new behind it and its sound, or the new frames alone.",
                ),
                io.Combo.Input(
                    "output_rate",
                    options=[AS_SOURCE, str(FPS)],
                    default=AS_SOURCE,
                    tooltip="Frames a second of the video. The model makes 24; other rates repeat or leave out frames.",
                ),
                codec_input(),
                io.Boolean.Input(
                    "official",
                    default=False,
                    tooltip="Frame counts and 8-bit hand-over exactly as the official code: 5 s become 132 frames.",
                ),
                frame_rate_input(),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The single-shot extension model, from SkyReels-V3 Load Model; for lines that continue.",
                ),
                io.Model.Input(
                    "shot_model",
                    optional=True,
                    tooltip="The shot switching model, from SkyReels-V3 Load Model; for lines that cut.",
                ),
            ],
            outputs=[
                io.Video.Output(display_name="video", tooltip="As a file, with the source's sound: for Save Video."),
                io.Image.Output(display_name="last_frames", tooltip="The last 25 frames at 24 a second."),
                io.String.Output(display_name="report", tooltip="What was made, roll by roll."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs):
        return lost_results()

    @classmethod
    def execute(cls, clip, vae, source, script, resolution, width, height, fit, seed, steps, shift, frame_rate, **rest):
        request = ExtensionRequest(
            source=source_of(source, frame_rate),
            lines=parse_script(script),
            size=chosen_size(resolution, width, height),
            fit=fit,
            settings=Settings(seed, rest["official"], rest["colour_anchor"]),
            sampling=Sampling(steps, shift, rest["sampler"], rest["guidance"], rest["negative"]),
            joined=rest["output"] == JOINED,
            rate=None if rest["output_rate"] == AS_SOURCE else Fraction(rest["output_rate"]),
            codec=rest["codec"],
        )
        node = cls.hidden.unique_id
        inputs = upstream(cls.hidden.prompt, node, ("clip", "vae", *ENTRIES.values()))
        models = ExtensionModels(clip, vae, {Job.EXTENSION: rest.get("model"), Job.SHOT: rest.get("shot_model")})
        path, tail, report = ExtensionRun(Node(node, inputs), models, request).run()
        last = to_image(tail_to_signed(tail.frames[:, :, -PREFIX_FRAMES:]))
        return io.NodeOutput(hand_out(path), last, report)
