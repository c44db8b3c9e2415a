"""A VAE's decoder in a worker: a video's latent frames become the rows of the picture that are this process's."""

from collections.abc import Mapping
from functools import partial

import torch

from ..skyreels_v3.vae.causal import Decoder, convolve
from ..skyreels_v3.vae.plain import plain_decoder
from ..skyreels_v3.vae.precision import full_float32
from ..skyreels_v3.vae.rows import Rows
from .ranks import Ranks


class Pictures:
    """One video that is decoded. weights: of the decoder, by their names; `device` has them as long as this lives.

    height: of the video in latent pixels, one for each process at least.  by_cudnn: see `causal.convolved`.
    """

    def __init__(
        self,
        weights: Mapping[str, torch.Tensor],
        ranks: Ranks,
        height: int,
        device: torch.device,
        by_cudnn: bool = False,
    ):
        network = plain_decoder({name: tensor.to(device) for name, tensor in weights.items()})
        self.device, self.rows = device, Rows(ranks, height)
        self.decoder = Decoder(network, partial(convolve, by_cudnn=by_cudnn), torch.channels_last_3d, self.rows)

    def of(self, latents: torch.Tensor, at_once: int) -> list[torch.Tensor]:
        """This process's rows of one more latent frame [1, 16, 1, h, w], on the processor: [1, 3, f, 8 rows, 8 w] each.

        See `causal.decode`. Computed in the latents' dtype.
        """
        own = latents[..., self.rows.held, :].to(self.device)
        with full_float32():
            return [piece.cpu() for piece in self.decoder.pieces(own, at_once)]
