"""ComfyUI's Wan VAE at its real size on a card that is not there, as the pack runs it: its memory beside the plan."""

import dataclasses
from typing import Any

import torch

from ..comfyui.process import PackNodes
from . import torch_device
from .profiles import Card

CHANNELS, LATENTS = 96, 3  # latent frames are enough for the most that lives at once


@dataclasses.dataclass(frozen=True)
class Pictures:
    """What is encoded (in float32, as the nodes do) or decoded. height, width: latent pixels.  at_once: frames."""

    direction: str
    height: int
    width: int
    at_once: int = 4

    def run(self, nodes: PackNodes, card: Card) -> dict[str, Any]:
        """The most memory beside the weights, and what is planned for tensors."""
        import comfy.ldm.wan.vae
        import comfy.model_management as management

        causal, memory = (nodes.module(f"skyreels_v3.vae.{name}") for name in ("causal", "memory"))
        device = torch.device(card.device, 0)
        direction = memory.Direction(self.direction)
        decodes = direction is memory.Direction.DECODE
        dtype = (
            management.vae_dtype(device, [torch.bfloat16, torch.float16, torch.float32]) if decodes else torch.float32
        )
        with torch_device.measured(card) as meter, torch.no_grad():
            network = comfy.ldm.wan.vae.WanVAE(dim=CHANNELS, z_dim=16, temperal_downsample=[False, True, True])
            network = network.to(device, dtype).eval()
            latents = torch.empty(1, 16, LATENTS, self.height, self.width, dtype=dtype, device=device)
            before = meter.live[card.device]
            meter.clear()

            def pixels(start: int, stop: int) -> torch.Tensor:
                return torch.empty(1, 3, stop - start, 8 * self.height, 8 * self.width, dtype=dtype, device=device)

            if decodes:
                pieces = causal.decode(network, latents, at_once=self.at_once)
            else:
                pieces = causal.encode(network, pixels, 4 * LATENTS - 3, at_once=self.at_once)
            for piece in pieces:
                assert piece.device == device and piece.dtype == dtype, (piece.device, piece.dtype)
                del piece
            sizes = self.height, self.width, CHANNELS, dtype.itemsize, self.at_once, causal.unfolds(device)
            return {
                "card": card.name,
                **dataclasses.asdict(self),
                "planned": memory.vae_bytes(direction, *sizes),
                "peak": meter.peak[card.device] - before,
                "waits": dict(meter.waits),
            }
