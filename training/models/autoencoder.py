"""The autoencoder of video: Wan 2.1's causal VAE, narrow, in a form that can be trained.

Names and layout of the weights are Wan's, so that the stock VAELoader opens the file. ComfyUI's class goes through a
clip four frames at a time; here a clip is one tensor, with the same result:

- a convolution over time sees the two frames before, zeros before the first;
- a halving of time leaves the first frame alone and makes one of every two others and the frame before them;
- a doubling of time leaves the first frame alone and makes two of every other, which do not see the first.

Source: Wan 2.1 (arXiv 2503.20314).
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from ...dev.samples.wan_vae import LATENTS, MEAN, MULTIPLIERS, STD

WIDTH = 12


class Causal(nn.Conv3d):
    """A convolution that sees two frames before, none after. kernel: of time, height, width, odd."""

    def __init__(self, columns: int, rows: int, kernel: tuple[int, int, int] = (3, 3, 3), stride: int = 1):
        super().__init__(columns, rows, kernel, stride=(stride, 1, 1), padding=(0, kernel[1] // 2, kernel[2] // 2))
        self.before = kernel[0] - 1 if stride == 1 else 0
        # As loud out as in: smaller weights would let the biases drown a picture on its way through thirty layers.
        nn.init.normal_(self.weight, std=self.weight[0].numel() ** -0.5)
        nn.init.zeros_(self.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.before and x.shape[2] == 1:  # an image: of the kernel only what meets it
            here = F.conv2d(x[:, :, 0], self.weight[:, :, -1], self.bias, padding=self.padding[1:])
            return here.unsqueeze(2)
        if self.before:
            x = F.pad(x, (0, 0, 0, 0, self.before, 0))
        return super().forward(x)


class Norm(nn.Module):
    """Every pixel's channels divided by their root mean square. dimensions: of what follows the channels."""

    def __init__(self, width: int, dimensions: int = 3):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width, *[1] * dimensions))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * (x.square().mean(dim=1, keepdim=True) + 1e-12).rsqrt() * self.gamma.to(x.dtype)


class Residual(nn.Module):
    def __init__(self, columns: int, rows: int):
        super().__init__()
        self.residual = nn.Sequential(
            Norm(columns), nn.SiLU(), Causal(columns, rows), Norm(rows), nn.SiLU(), nn.Identity(), Causal(rows, rows)
        )
        self.shortcut = Causal(columns, rows, (1, 1, 1)) if columns != rows else nn.Identity()
        nn.init.zeros_(self.residual[6].weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shortcut(x) + self.residual(x)


class PixelAttention(nn.Module):
    """Attention among the pixels of each frame."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = Norm(width, 2)
        self.to_qkv = nn.Conv2d(width, 3 * width, 1)
        self.proj = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.proj.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames = x.transpose(1, 2).flatten(0, 1)
        q, k, v = self.to_qkv(self.norm(frames)).flatten(2).transpose(1, 2)[:, None].chunk(3, dim=-1)
        seen = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).unflatten(2, frames.shape[2:])
        return x + self.proj(seen).unflatten(0, (len(x), -1)).transpose(1, 2)


class Halving(nn.Module):
    """Half the height and width, and with `time` half the frames but the first."""

    def __init__(self, width: int, time: bool):
        super().__init__()
        self.resample = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), _plane(nn.Conv2d(width, width, 3, stride=2)))
        if time:
            self.time_conv = Causal(width, width, (3, 1, 1), stride=2)
            _start_in_time(self.time_conv, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.resample(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1)).transpose(1, 2)
        if hasattr(self, "time_conv") and x.shape[2] > 1:
            x = torch.cat([x[:, :, :1], self.time_conv(x)], dim=2)
        return x


class Doubling(nn.Module):
    """Twice the height and width with half the channels, and with `time` twice the frames but the first."""

    def __init__(self, width: int, time: bool):
        super().__init__()
        self.resample = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="nearest-exact"), _plane(nn.Conv2d(width, width // 2, 3, padding=1))
        )
        if time:
            self.time_conv = Causal(width, 2 * width, (3, 1, 1))
            _start_in_time(self.time_conv, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if hasattr(self, "time_conv") and x.shape[2] > 1:
            later = self.time_conv(x[:, :, 1:]).unflatten(1, (2, -1))
            x = torch.cat([x[:, :, :1], later.permute(0, 2, 3, 1, 4, 5).flatten(2, 3)], dim=2)
        return self.resample(x.transpose(1, 2).flatten(0, 1)).unflatten(0, (len(x), -1)).transpose(1, 2)


def _start_in_time(kernel: nn.Conv3d, repeats: int) -> None:
    """Makes a convolution over time hand on the newest frame, `repeats` times: motion is learnt from there."""
    with torch.no_grad():
        kernel.weight.mul_(0.1)
        kernel.weight[:, :, -1, 0, 0] += torch.eye(kernel.in_channels).repeat(repeats, 1)


def _plane(kernel: nn.Conv2d) -> nn.Conv2d:
    """The kernel with weights that leave loudness as it is."""
    nn.init.normal_(kernel.weight, std=kernel.weight[0].numel() ** -0.5)
    nn.init.zeros_(kernel.bias)
    return kernel


def _middle(width: int) -> nn.Sequential:
    return nn.Sequential(Residual(width, width), PixelAttention(width), Residual(width, width))


def _head(width: int, rows: int) -> nn.Sequential:
    return nn.Sequential(Norm(width), nn.SiLU(), Causal(width, rows))


class Encoder(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        widths = [width * m for m in (1, *MULTIPLIERS)]
        self.conv1 = Causal(3, width)
        layers = []
        for stage, (columns, rows) in enumerate(pairwise(widths)):
            layers += [Residual(columns, rows), Residual(rows, rows)]
            if stage < 3:
                layers.append(Halving(rows, time=stage > 0))
        self.downsamples = nn.Sequential(*layers)
        self.middle = _middle(widths[-1])
        self.head = _head(widths[-1], 2 * LATENTS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.middle(self.downsamples(self.conv1(x))))


class Decoder(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        widths = [width * m for m in (MULTIPLIERS[-1], *reversed(MULTIPLIERS))]
        self.conv1 = Causal(LATENTS, widths[0])
        self.middle = _middle(widths[0])
        layers = []
        for stage, (columns, rows) in enumerate(pairwise(widths)):
            layers += [Residual(columns // 2 if stage else columns, rows), Residual(rows, rows), Residual(rows, rows)]
            if stage < 3:
                layers.append(Doubling(rows, time=stage < 2))
        self.upsamples = nn.Sequential(*layers)
        self.head = _head(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.upsamples(self.middle(self.conv1(x))))


class Autoencoder(nn.Module):
    """frames [B, 3, 4n + 1, H, W] in -1..1 to latents [B, 16, n + 1, H / 8, W / 8] as the transformers see them."""

    def __init__(self, width: int = WIDTH):
        super().__init__()
        self.encoder = Encoder(width)
        self.conv1 = Causal(2 * LATENTS, 2 * LATENTS, (1, 1, 1))
        self.conv2 = Causal(LATENTS, LATENTS, (1, 1, 1))
        self.decoder = Decoder(width)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(STD)[:, None, None, None], persistent=False)

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        return (self.conv1(self.encoder(frames))[:, :LATENTS] - self.mean) / self.deviation

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.conv2(latents * self.deviation + self.mean))

    @torch.no_grad()
    def standardise(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        """Makes `encode` give (latents - mean) / deviation [16] per channel of what it gave. `decode` stays as it is.

        Without it the autoencoder's own scale would have to be told to everyone who opens the file.
        """
        mean, deviation = (x.to(self.conv1.bias) for x in (mean, deviation))
        scale, own = self.deviation.flatten(), self.mean.flatten()
        # of what conv1 gives, y, (y - MEAN) / STD is to become ((y - MEAN) / STD - mean) / deviation
        rows = deviation.new_ones(2 * LATENTS)
        rows[:LATENTS] = 1 / deviation
        self.conv1.weight.mul_(rows[:, None, None, None, None])
        bias = self.conv1.bias
        bias[:LATENTS] = (bias[:LATENTS] - own) / deviation + own - mean / deviation * scale
