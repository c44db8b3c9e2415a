"""Plan: what a job will need on this machine, and whether it fits, before anything runs."""

import comfy.model_management
import torch
from comfy_api.latest import io

from ..skyreels_v3.errors import InputError
from ..skyreels_v3.plan import FRAMES, Machine, Network, Plan, Size, gb, planned_size
from ..skyreels_v3.recipes import LATENT_PIXEL
from ..skyreels_v3.reference import LATENT_CHANNELS, MAX_SECONDS
from . import host
from .machine import machine_of
from .operations import Packed
from .sampling import skyreels_model
from .vae import check_vae

PLAIN = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


def network_of(patcher) -> Network:
    """The sizes of a MODEL. Raises InputError for a model of another loader."""
    model = skyreels_model(patcher)
    stored = model.get_dtype()
    computed = stored if model.manual_cast_dtype is None else model.manual_cast_dtype
    formats = {layer.format.name for layer in model.diffusion_model.modules() if isinstance(layer, Packed)}
    precision = " + ".join(sorted(formats)) or PLAIN.get(stored, str(stored))
    return Network(model.params, model.job, computed.itemsize, patcher.model_size(), precision)


def beside_the_model(size: Size, vram: int, vae, clip) -> list[str]:
    """What ComfyUI counts on for the VAE and the text encoder, which take turns with the model."""
    lines = []
    if vae is not None:
        check_vae(vae)
        latent = (1, LATENT_CHANNELS, size.latents, size.height // LATENT_PIXEL, size.width // LATENT_PIXEL)
        decode = int(vae.memory_used_decode(latent, vae.vae_dtype))
        encode = int(vae.memory_used_encode((1, 3, size.frames, size.height, size.width), vae.vae_dtype))
        tiles = ", in tiles where that is too much" if max(decode, encode) > vram else ""
        lines.append(f"VAE: decode {gb(decode)}, encode {gb(encode)}{tiles}")
    if clip is not None:
        lines.append(f"text encoder {gb(clip.patcher.model_size())}")
    return lines


class PlanNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        own = ", ".join(f"{job.value} {frames}" for job, frames in FRAMES.items())
        return host.schema(
            node_id="SkyReelsPlan",
            display_name="SkyReels-V3 Plan",
            description="Says before anything runs what a job needs on this machine and whether it fits. Between Load "
            "Model and the sampler it stops a job that cannot fit, and names settings that would.",
            search_aliases=["vram", "memory", "out of memory", "oom", "estimate", "will it fit", "skyreels plan"],
            inputs=[
                io.Model.Input("model", tooltip="A model from SkyReels-V3 Load Model; its job decides the rest."),
                io.Int.Input(
                    "width", default=832, min=16, max=4096, step=16, tooltip="Pixels; snapped to a multiple of 16."
                ),
                io.Int.Input(
                    "height", default=480, min=16, max=4096, step=16, tooltip="Pixels; snapped to a multiple of 16."
                ),
                io.Int.Input(
                    "frames",
                    default=0,
                    min=0,
                    max=int(MAX_SECONDS * 24) + 1,
                    tooltip=f"Of one forward; 0: the job's own ({own}). For an extension the new ones of a roll, for "
                    "an avatar the window: longer ones are made one after another and need no more memory.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="The VAE of Wan 2.1: adds what it needs."),
                io.Clip.Input("clip", optional=True, tooltip="umt5_xxl: adds what it needs."),
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
        network, machine = network_of(model), machine_of(model.load_device)
        plan = Plan(network, planned_size(network.job, width, height, frames, batch_size), machine)
        if machine.streams and not plan.fits:
            raise InputError(plan.problem())
        *lines, verdict = plan.describe()
        lines += [*beside_the_model(plan.size, machine.vram, vae, clip), verdict]
        host.tell(cls.hidden.unique_id, *lines)
        return io.NodeOutput(model, "\n".join(lines))
