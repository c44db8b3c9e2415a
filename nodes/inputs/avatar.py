"""What a person who speaks is made with: the inputs that Talking Avatar and Dub Video share."""

from comfy_api.latest import io

from ...skyreels_v3.jobs.avatar.plan import DEFAULT_TIMING
from ...skyreels_v3.recipes import RECIPES, Job
from .conditioning import clip_input, vae_input
from .sampling import guidance_input, negative_input, seed_input, shift_input, steps_input


def model_inputs() -> list[io.Input]:
    """The A2V checkpoint and the encoders that it needs beside that of speech."""
    return [
        io.Model.Input("model", tooltip="The A2V checkpoint, from SkyReels-V3 Load Model."),
        clip_input(),
        vae_input(),
        io.ClipVision.Input("clip_vision", tooltip="clip_vision_h (CLIPVisionLoader)."),
    ]


def avatar_sampling_inputs(prompt: str) -> list[io.Input]:
    """seed to negative. prompt: what text_guidance follows, in words."""
    recipe = RECIPES[Job.AVATAR]
    return [
        seed_input("Of all noise."),
        steps_input(recipe, f"The model is distilled for {recipe.steps}."),
        shift_input(recipe, f"The model is made for {recipe.shift:g}."),
        guidance_input("text_guidance", f"Above 1 follows {prompt} harder; two or three forwards a step."),
        guidance_input("audio_guidance", "Above 1 moves the mouth more; two or three forwards a step."),
        negative_input(recipe),
    ]


def timing_inputs(motion: str, drop: str, least_window: int = 9, least_drop: int = 0) -> list[io.Input]:
    """window, motion and drop. motion, drop: what these frames are, in words."""
    usual = DEFAULT_TIMING
    return [
        io.Int.Input(
            "window",
            default=usual.window,
            min=least_window,
            max=321,
            step=4,
            tooltip=f"Frames made at once, 4n + 1; the model is made for {usual.window}.",
        ),
        io.Int.Input("motion", default=usual.motion, min=1, max=41, step=4, tooltip=f"{motion}, 4n + 1."),
        io.Int.Input("drop", default=usual.drop, min=least_drop, max=80, tooltip=drop),
    ]
