"""ComfyUI's VAE as the callables that the jobs take: pixels in [-1, 1], latents in model space.

Encoding is computed in float32 whatever the VAE was loaded in: what is encoded becomes the condition of everything
after it, and bfloat16 shifts that. Decoding is computed in the precision that ComfyUI loaded the VAE in: bfloat16
where the card has it, float16 on older ones, float32 with --fp32-vae and on processors without units for 16 bits.
benchmarks/README.md has what that costs. Weights are cast layer by layer, while they are used.

How the video is tiled is decided before, by `vae_memory`; only where its count is wrong does a card run out.
"""

import functools
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import comfy.latent_formats
import comfy.ldm.wan.vae
import comfy.model_management
import torch

from ...distributed.cluster import Lost
from ...distributed.group import Group
from ...kernels.half_precision import computed_in
from ...skyreels_v3.errors import InputError
from ...skyreels_v3.recipes import FRAMES_PER_LATENT, LATENT_CHANNELS, PIXELS_PER_LATENT, latent_frames
from ...skyreels_v3.vae import causal as causal_vae
from ...skyreels_v3.vae import memory as vae_memory
from ...skyreels_v3.vae.memory import PIXEL_CHANNELS, Direction, Tiling
from ...skyreels_v3.vae.precision import full_float32
from ...skyreels_v3.vae.tiles import tiles
from .. import versions
from .shared_vae import shared_frames

LATENT_FORMAT = comfy.latent_formats.Wan21()
Encode = Callable[[torch.Tensor], torch.Tensor]
Decode = Callable[[torch.Tensor], Iterator[torch.Tensor]]
log = logging.getLogger(__name__)


def check_vae(vae) -> None:
    """Raises InputError for a VAE of another family."""
    network: Any = getattr(vae, "first_stage_model", None)
    if not isinstance(network, comfy.ldm.wan.vae.WanVAE):
        raise InputError(
            f"The VAE is {type(network).__name__}, but SkyReels-V3 needs the one of Wan 2.1: "
            "load wan_2.1_vae.safetensors with VAELoader."
        )
    channels = network.encoder.conv1.in_channels
    if channels != PIXEL_CHANNELS:
        raise InputError(
            f"The VAE takes pictures of {channels} channels, but SkyReels-V3 needs the one of Wan 2.1 for "
            f"{PIXEL_CHANNELS}: load wan_2.1_vae.safetensors with VAELoader."
        )
    if computed_in(vae.vae_dtype, vae.device) != vae.vae_dtype:
        _warn_of_slow_nodes(vae.vae_dtype)


@functools.cache
def _warn_of_slow_nodes(dtype: torch.dtype) -> None:
    """Once for a dtype: a line in the log, not one for every window."""
    name = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    log.warning(
        "SkyReels-V3: ComfyUI was told to compute the VAE in %s, which this processor has no units for; SkyReels-V3 "
        "nodes compute in float32, but VAE Decode and VAE Encode take many times as long: start ComfyUI without "
        "--%s-vae.",
        name,
        name,
    )


def encoder(vae) -> Encode:
    """pixels [1, 3, 4n + 1, H, W] -> latents [1, 16, n + 1, H / 8, W / 8]. Raises InputError for another VAE."""
    check_vae(vae)

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        height, width = (side // PIXELS_PER_LATENT for side in pixels.shape[-2:])
        tiled = TiledVae(vae, Direction.ENCODE, height, width)
        shape = (1, LATENT_CHANNELS, latent_frames(pixels.shape[2]), height, width)
        latents, done = torch.empty(shape, device=vae.output_device), 0
        for piece in tiled.run(lambda tiling: _encoded(tiled, tiling, pixels, shape)):
            latents[:, :, done : done + piece.shape[2]] = piece
            done += piece.shape[2]
        return LATENT_FORMAT.process_in(latents)

    return encode


def decoder(vae, group: Group | None = None) -> Decode:
    """latents [1, 16, n + 1, h, w] -> their 4n + 1 frames in pieces [1, 3, f, 8 h, 8 w], float32 on any device.

    A piece comes when it is asked for; nothing of what was handed out is kept, but in tiles, where all frames come
    at the end. group: of cards that each decode some rows, None for one card. Raises InputError for another VAE.
    """
    check_vae(vae)

    def decode(latents: torch.Tensor) -> Iterator[torch.Tensor]:
        tiled, latents = TiledVae(vae, Direction.DECODE, *latents.shape[-2:]), LATENT_FORMAT.process_out(latents)
        shared = () if group is None else shared_frames(vae, group, latents, tiled.dtype)
        return tiled.run(lambda tiling: _decoded(tiled, tiling, latents), shared)

    return decode


@dataclass(frozen=True)
class TiledVae:
    """ComfyUI's VAE on videos of one size, in as many tiles as memory asks for. height, width: latent pixels."""

    vae: Any
    direction: Direction
    height: int
    width: int

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.direction is Direction.ENCODE else computed_in(self.vae.vae_dtype, self.vae.device)

    def tilings(self) -> Iterator[Tiling]:
        channels = self.vae.first_stage_model.dim
        unfolds = causal_vae.unfolds(self.vae.device)
        return vae_memory.tilings(self.direction, self.height, self.width, channels, self.dtype.itemsize, unfolds)

    def planned(self) -> Tiling:
        """The tiling where the device holds the VAE and nothing else."""
        manager, vae = comfy.model_management, self.vae
        taken = manager.extra_reserved_memory() + vae.patcher.model_size()
        return vae_memory.choose(manager.get_total_memory(vae.device) - taken, self.tilings)

    def ready(self) -> Tiling:
        """The tiling, now that the VAE is on its device and other models have made room there."""
        tiling, vae = self.planned(), self.vae
        comfy.model_management.load_models_gpu(
            [vae.patcher], memory_required=tiling.bytes, force_full_load=vae.disable_offload
        )
        free = versions.free_memory(vae.patcher, vae.device)
        return tiling if tiling.bytes <= free else vae_memory.choose(free, self.tilings)

    def run(
        self, work: Callable[[Tiling], Iterator[torch.Tensor]], shared: Iterable[torch.Tensor] = ()
    ) -> Iterator[torch.Tensor]:
        """What `work` yields, [1, C, f, ...]. Where memory runs out it begins again, in smaller and smaller tilings.

        shared: the same, made by several cards; where they fail or give nothing, `work` makes what is left here.
        """
        done = 0
        try:
            for piece in shared:
                done += piece.shape[2]
                yield piece
        except (Lost, InputError) as error:
            log.warning("SkyReels-V3: the video is decoded on one card from frame %d on (%s).", done, error)
        else:
            if done:
                return
        tiling = self.ready()
        while True:
            behind = done  # frames that were handed out and are made again
            try:
                for piece in self.steps(work(tiling)):
                    new = piece[:, :, max(0, behind) :]
                    behind -= piece.shape[2]
                    if new.shape[2]:
                        done += new.shape[2]
                        yield new
                return
            except Exception as error:
                less = vae_memory.smaller(tiling, self.tilings)
                if less is None or not versions.is_out_of_memory(error):
                    raise
            # Outside of the block above, whose error holds on to the tensors.
            log.warning(
                "SkyReels-V3: the memory did not suffice to %s the video%s; it is tried again%s, %d frames at once.",
                self.direction.value,
                tiling.describe(),
                less.describe(),
                less.at_once,
            )
            tiling = less
            comfy.model_management.soft_empty_cache()

    def steps(self, pieces: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
        """The pieces, each made as ComfyUI makes things: interruptible, without gradients, on the right device."""
        while True:
            comfy.model_management.throw_exception_if_processing_interrupted()
            with versions.on_device(self.vae.device), torch.no_grad(), full_float32():
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece

    def options(self, tiling: Tiling) -> dict:
        """Keyword arguments of `causal_vae`."""
        # MPS and others have no convolutions in 3 dimensions with channels last.
        fast = self.vae.device.type in ("cuda", "cpu")
        layout = torch.channels_last_3d if fast else torch.contiguous_format
        return {"convolve": versions.convolve, "at_once": tiling.at_once, "layout": layout}

    def to_device(self, video: torch.Tensor) -> torch.Tensor:
        return video.to(self.vae.device, self.dtype)


def _decoded(tiled: TiledVae, tiling: Tiling, latents: torch.Tensor) -> Iterator[torch.Tensor]:
    network, options = tiled.vae.first_stage_model, tiled.options(tiling)
    if tiling.whole:
        for piece in causal_vae.decode(network, tiled.to_device(latents), **options):
            yield piece.float()
        return
    frames = FRAMES_PER_LATENT * (latents.shape[2] - 1) + 1
    video = torch.zeros(1, PIXEL_CHANNELS, frames, *(PIXELS_PER_LATENT * side for side in latents.shape[-2:]))
    for tile in tiles(tiling, PIXELS_PER_LATENT):
        done = 0
        for piece in tiled.steps(causal_vae.decode(network, tiled.to_device(tile.cut(latents)), **options)):
            tile.add(piece.to(video), video[:, :, done : done + piece.shape[2]])
            done += piece.shape[2]
    yield video


def _encoded(tiled: TiledVae, tiling: Tiling, pixels: torch.Tensor, shape: tuple[int, ...]) -> Iterator[torch.Tensor]:
    network, options = tiled.vae.first_stage_model, tiled.options(tiling)

    def of(video: torch.Tensor) -> Iterator[torch.Tensor]:
        return causal_vae.encode(
            network, lambda start, stop: tiled.to_device(video[:, :, start:stop]), video.shape[2], **options
        )

    if tiling.whole:
        yield from of(pixels)
        return
    latents = torch.zeros(shape)
    for tile in tiles(tiling):
        done = 0
        for piece in tiled.steps(of(tile.cut(pixels, PIXELS_PER_LATENT))):
            tile.add(piece.to(latents), latents[:, :, done : done + piece.shape[2]])
            done += piece.shape[2]
    yield latents
