"""ComfyUI's VAE as the callables that the jobs take: pixels in [-1, 1], latents in model space."""

from collections.abc import Callable

import comfy.latent_formats
import comfy.ldm.wan.vae
import torch

from ..skyreels_v3.errors import InputError

LATENT_FORMAT = comfy.latent_formats.Wan21()
Convert = Callable[[torch.Tensor], torch.Tensor]


def check_vae(vae) -> None:
    """Raises InputError for a VAE of another family."""
    network = getattr(vae, "first_stage_model", None)
    if not isinstance(network, comfy.ldm.wan.vae.WanVAE):
        raise InputError(
            f"The VAE is {type(network).__name__}, but SkyReels-V3 needs the one of Wan 2.1: "
            "load wan_2.1_vae.safetensors with VAELoader."
        )


def encoder(vae) -> Convert:
    """pixels [1, 3, 4n + 1, H, W] -> latents [1, 16, n + 1, H / 8, W / 8]. Raises InputError for another VAE."""
    check_vae(vae)

    def encode(pixels: torch.Tensor) -> torch.Tensor:
        images = (pixels[0].permute(1, 2, 3, 0) + 1) / 2
        return LATENT_FORMAT.process_in(vae.encode(images))

    return encode


def decoder(vae) -> Convert:
    """latents [1, 16, n + 1, h, w] -> pixels [1, 3, 4n + 1, 8 h, 8 w]. Raises InputError for another VAE."""
    check_vae(vae)

    def decode(latents: torch.Tensor) -> torch.Tensor:
        images = vae.decode(LATENT_FORMAT.process_out(latents))
        return images.movedim(-1, 1).mul(2).sub(1)

    return decode
