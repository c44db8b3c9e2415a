"""Plan: what a job will need on this machine, and whether it fits, before anything runs."""

from comfy_api.latest import io

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.jobs.estimates.budget import Budget, Size, planned_size
from ...skyreels_v3.jobs.estimates.forecast import duration
from ...skyreels_v3.jobs.estimates.sharing import WORTH
from ...skyreels_v3.jobs.reference import MAX_FRAMES
from ...skyreels_v3.jobs.spec import SPECS
from ...skyreels_v3.recipes import PIXELS_PER_LATENT, RECIPES, Job
from ...skyreels_v3.units import gb
from ...skyreels_v3.vae.memory import Direction
from .. import versions
from ..encoders.shared_vae import bytes_on_each
from ..encoders.vae import TiledVae, check_vae
from ..inputs.size import side_inputs
from ..network.forecast import expected, modelled
from ..network.sizes import machine_for, network_of, sharing_of


def beside_the_model(size: Size, vae, clip, cards: int = 1) -> list[str]:
    """What the VAE and the text encoder need, which take turns with the model. cards: that decode rows of a picture."""
    lines = []
    if vae is not None:
        check_vae(vae)
        height, width = size.height // PIXELS_PER_LATENT, size.width // PIXELS_PER_LATENT
        both = Direction.DECODE, Direction.ENCODE
        tiled = [TiledVae(vae, one, height, width) for one in both]
        tilings = [(one.direction.value, one.planned()) for one in tiled]
        lines.append("VAE: " + ", ".join(f"{verb} {gb(each.bytes)}{each.describe()}" for verb, each in tilings))
        if cards > 1:
            each = bytes_on_each(vae, cards, height, width, tiled[0].dtype)
            lines.append(f"SkyReels-V3 nodes decode rows of the picture on each of {cards} cards, {gb(each)} on each")
    if clip is not None:
        lines.append(f"text encoder {gb(clip.patcher.model_size())}")
    return lines


def time_needed(patcher, size: Size, job: Job) -> list[str]:
    """How long the sampling takes by what this machine measured before, else by what its card can do; and what would
    shorten it. Nothing where neither is known.
    """
    tokens, steps = size.tokens // size.batch, RECIPES[job].steps
    known, model = expected(patcher, tokens, size.batch), modelled(patcher, tokens, size.batch)
    if known is not None:
        how = f"{'measured' if known.tokens == tokens else 'by what was measured'} here at {known.tokens:,} tokens"
        took = steps * known.seconds
    elif model is not None:
        how = "modelled; " + ("such a card was measured" if model.corrected else "no such card was measured yet")
        took = steps * model.seconds
    else:
        return []
    lines = [f"about {duration(took)} for {steps} steps, {how}"]
    faster = () if model is None else model.faster
    return lines + [f"{words} about {duration(share * took)}, modelled" for words, share in faster]


def sharing(patcher, size: Size, job: Job) -> list[str]:
    """What several cards exchange, and how much sooner they are ready than one, as far as this machine knows."""
    cards = sharing_of(patcher)
    if cards is None or cards.cards == 1:  # a cluster with one card
        return []
    network, each = network_of(patcher), size.tokens // size.batch
    sent = cards.exchanged(network.params, size.tokens, network.itemsize)
    lines = [f"a card sends {gb(sent)} in each step, about {sent / cards.rate:.1f} s by the link as measured"]
    alone, together = expected(patcher, each, size.batch, 1), expected(patcher, each, size.batch)
    if alone is None:
        return lines
    seconds = cards.seconds(alone.seconds, network.params, size.tokens, network.itemsize)
    how = "by a model"
    if together is not None:
        seconds, how = together.seconds, "measured"
    else:
        lines.append(f"about {duration(RECIPES[job].steps * seconds)} for {RECIPES[job].steps} steps, {how}")
    gain = alone.seconds / seconds
    if gain < WORTH:
        return [*lines, f"{cards.cards} cards over this link take as long as one ({how}): set gpus to 1"]
    return [*lines, f"{cards.cards} cards are {gain:.1f} times as fast as one ({how})"]


class PlanNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        own = ", ".join(f"{job.value} {spec.frames}" for job, spec in SPECS.items())
        return versions.schema(
            node_id="SkyReelsPlan",
            display_name="SkyReels-V3 Plan",
            description="Says before anything runs what a job needs on this machine and whether it fits. Between Load "
            "Model and the sampler it stops a job that cannot fit, and names settings that would.",
            search_aliases=["vram", "memory", "out of memory", "oom", "estimate", "will it fit", "skyreels plan"],
            inputs=[
                io.Model.Input("model", tooltip="A model from SkyReels-V3 Load Model; its job decides the rest."),
                *side_inputs("Pixels; snapped to a multiple of 16."),
                io.Int.Input(
                    "frames",
                    default=0,
                    min=0,
                    max=MAX_FRAMES,
                    tooltip=f"Of one forward; 0: the job's own ({own}). For an extension the new ones of a roll, for "
                    "an avatar the window: longer ones are made one after another and need no more memory.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="The VAE of Wan 2.1: adds what it needs."),
                io.Clip.Input("clip", optional=True, tooltip="The text encoder, umt5_xxl: adds what it needs."),
                io.Int.Input(
                    "batch_size", default=1, min=1, max=64, optional=True, tooltip="Videos made side by side."
                ),
            ],
            outputs=[
                io.Model.Output(display_name="unchanged model", tooltip="The model as it came, for any sampler."),
                io.String.Output(display_name="text", tooltip="What the node shows."),
            ],
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model, width, height, frames, vae=None, clip=None, batch_size=1) -> io.NodeOutput:
        network, machine = network_of(model), machine_for(model)
        budget = Budget(network, planned_size(network.job, width, height, frames, batch_size), machine)
        if machine.streams and not budget.fits:
            raise InputError(budget.problem())
        *lines, verdict = budget.describe()
        lines += beside_the_model(budget.size, vae, clip, network.cards)
        lines += [*time_needed(model, budget.size, network.job), *sharing(model, budget.size, network.job), verdict]
        versions.tell(cls.hidden.unique_id, *lines)
        return io.NodeOutput(model, "\n".join(lines))
