"""How a video is sampled and written: the inputs that the jobs' nodes and those for the artist's own sampler share."""

from comfy_api.latest import io

from ...skyreels_v3.recipes import Recipe
from ...skyreels_v3.sampling.schedule import MAX_STEPS
from ...skyreels_v3.video.writer import CODECS, DEFAULT_CODEC


def seed_input(noise: str) -> io.Input:
    """noise: what it is the seed of, in words."""
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=0xFFFFFFFFFFFFFFFF,
        control_after_generate=False,  # another seed is another run, which could not go on with this one's windows
        tooltip=f"{noise} Another one is another job.",
    )


def steps_input(recipe: Recipe | None, tooltip: str) -> io.Input:
    """recipe: whose steps are the default; without one that is 0, which stands for those of the model's job."""
    return io.Int.Input(
        "steps", default=recipe.steps if recipe else 0, min=1 if recipe else 0, max=MAX_STEPS, tooltip=tooltip
    )


def shift_input(recipe: Recipe | None, tooltip: str) -> io.Input:
    """recipe: as in `steps_input`."""
    return io.Float.Input(
        "shift",
        default=recipe.shift if recipe else 0.0,
        min=0.1 if recipe else 0.0,
        max=100.0,
        step=0.1,
        tooltip=tooltip,
    )


def guidance_input(name: str, tooltip: str, optional: bool = False) -> io.Input:
    """A weight of guidance; at its default each step is one forward, which all four models were distilled for."""
    return io.Float.Input(name, default=1.0, min=1.0, max=30.0, step=0.1, optional=optional, tooltip=tooltip)


def negative_input(recipe: Recipe) -> io.Input:
    """The negative prompt as text. recipe: whose negative prompt stands in for an empty one."""
    empty = " Empty: the official list of faults." if recipe.negative else ""
    return io.String.Input(
        "negative", multiline=True, default="", tooltip=f"What to avoid; used only with guidance above 1.{empty}"
    )


def codec_input() -> io.Input:
    """How the video is written."""
    return io.Combo.Input(
        "codec",
        options=list(CODECS),
        default=DEFAULT_CODEC,
        tooltip="h264 plays everywhere; lossless keeps every pixel, for editing.",
    )
