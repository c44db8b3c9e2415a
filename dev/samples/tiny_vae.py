"""A narrow Wan 2.1 VAE whose decode of an encode looks like the input, made by hand instead of by training.

Names and layout are the official ones (checked against `shapes` of the golden `vae`), so that ComfyUI's VAELoader opens
it at its own width. Residual blocks, time convolutions and attention hold small random weights; the picture goes past
them on a path that is set by hand:

- Every channel but a few is left to chance; channel 0 is a large constant, which makes each RMS norm, whose divisor is
  then nearly that constant, a multiplication by a known number.
- SiLU(x) - SiLU(-x) = x, so a signal that comes with its negative passes the heads exactly.
- Each of the three spatial halvings averages, each doubling interpolates: a latent pixel is the mean of its 8 x 8.
- The two time convolutions sort four frames into four slots of three colours, and back: motion stays exact.
- 12 of the 16 latent channels carry the slots with the mean and deviation that ComfyUI's Wan 2.1 latents have, so that
  a latent of unit noise decodes to a picture that is neither black nor grey.
"""

from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file

from pack.dev.samples.wan_vae import LATENTS, MEAN, MULTIPLIERS, STD

COLOURS, SLOTS = 3, 4  # four frames to a latent frame
SIGNALS = COLOURS * SLOTS
CONSTANT = 10.0  # channel 0; pictures are in -1..1, so norms change by some per cent at most
NOISE = 0.02  # of the residual branches' last layers
LATENT_SCALE = 2.0  # pictures have a deviation of about 0.5


class _Weights(dict):
    """Name -> tensor, with the layers of the VAE as methods.

    Rows and columns of a kernel that carry the picture: 0 the constant, then 1 + colour + 3 * slot.
    """

    def __init__(self, seed: int):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def conv(
        self, name: str, rows: int, columns: int, kernel: tuple[int, ...] = (), scale: float = 0.0
    ) -> torch.Tensor:
        """A convolution without bias; random at `scale` times that of an initial layer."""
        shape = (rows, columns, *kernel)
        fan_in = torch.tensor(shape[1:]).prod().sqrt()
        self[f"{name}.weight"] = torch.randn(shape, generator=self.generator) * scale / fan_in
        self[f"{name}.bias"] = torch.zeros(rows)
        return self[f"{name}.weight"]

    def gamma(self, name: str, width: int, dimensions: int) -> torch.Tensor:
        self[f"{name}.gamma"] = torch.ones(width, *[1] * dimensions)
        return self[f"{name}.gamma"]

    def residual(self, name: str, columns: int, rows: int) -> None:
        gamma = self.gamma(f"{name}.residual.0", columns, 3)
        gamma *= CONSTANT / columns**0.5  # undoes the division by the constant
        gamma[0] = 0
        self.conv(f"{name}.residual.2", rows, columns, (3, 3, 3), scale=1)
        self.gamma(f"{name}.residual.3", rows, 3)
        self.conv(f"{name}.residual.6", rows, rows, (3, 3, 3), scale=NOISE)
        if rows != columns:
            self.conv(f"{name}.shortcut", rows, columns, (1, 1, 1))[:, :, 0, 0, 0] = torch.eye(rows, columns)

    def middle(self, name: str, width: int) -> None:
        self.residual(f"{name}.0", width, width)
        self.gamma(f"{name}.1.norm", width, 2)
        self.conv(f"{name}.1.to_qkv", 3 * width, width, (1, 1), scale=1)
        self.conv(f"{name}.1.proj", width, width, (1, 1), scale=NOISE)
        self.residual(f"{name}.2", width, width)


def _slot(slot: int) -> slice:
    return slice(1 + COLOURS * slot, 1 + COLOURS * (slot + 1))


COLOUR = torch.eye(COLOURS)
NEGATIVE = 1 + SIGNALS  # first channel of the negatives


def _encoder(w: _Weights, width: int) -> None:
    widths = [width * m for m in (1, *MULTIPLIERS)]
    w.conv("encoder.conv1", width, COLOURS, (3, 3, 3))[_slot(0), :, 2, 1, 1] = COLOUR
    w["encoder.conv1.bias"][0] = CONSTANT
    layer = 0
    for stage, (columns, rows) in enumerate(pairwise(widths)):
        for inner in (columns, rows):
            w.residual(f"encoder.downsamples.{layer}", inner, rows)
            layer += 1
        if stage == 3:
            break
        name = f"encoder.downsamples.{layer}"
        average = w.conv(f"{name}.resample.1", rows, rows, (3, 3))
        average[:, :, :2, :2] = torch.eye(rows)[:, :, None, None] / 4
        if stage == 1:
            time = w.conv(f"{name}.time_conv", rows, rows, (3, 1, 1))[..., 0, 0]
            time[0, 0, 2] = 1
            for slot in range(2):  # the taps are the frame before, and two new ones
                time[_slot(slot), _slot(0), 1 + slot] = COLOUR
        if stage == 2:
            for slot in range(2):  # here and not later: the first frame passes no time convolution
                negative = slice(NEGATIVE + COLOURS * slot, NEGATIVE + COLOURS * (slot + 1))
                average[negative] = 0
                average[negative, _slot(slot), :2, :2] = -COLOUR[:, :, None, None] / 4
            time = w.conv(f"{name}.time_conv", rows, rows, (3, 1, 1))[..., 0, 0]
            time[0, 0, 2] = 1
            for start in (1, NEGATIVE):
                for slot in range(SLOTS):
                    here = slice(start + COLOURS * slot, start + COLOURS * (slot + 1))
                    there = slice(start + COLOURS * (slot % 2), start + COLOURS * (slot % 2 + 1))
                    time[here, there, 1 + slot // 2] = COLOUR
        layer += 1
    w.middle("encoder.middle", widths[-1])
    w.gamma("encoder.head.0", widths[-1], 3)
    head = w.conv("encoder.head.2", 2 * LATENTS, widths[-1], (3, 3, 3))[:, :, 2, 1, 1]
    gain = torch.eye(SIGNALS) * CONSTANT / widths[-1] ** 0.5
    head[:SIGNALS, 1 : 1 + SIGNALS] = gain
    head[:SIGNALS, NEGATIVE : NEGATIVE + SIGNALS] = -gain


def _latents(w: _Weights) -> None:
    mean, deviation = torch.tensor(MEAN), torch.tensor(STD) * LATENT_SCALE
    into = w.conv("conv1", 2 * LATENTS, 2 * LATENTS, (1, 1, 1))[..., 0, 0, 0]
    into[:SIGNALS, :SIGNALS] = torch.diag(deviation[:SIGNALS])
    # The other channels are mixtures, which the decoder does not read.
    mixture = torch.randn(LATENTS - SIGNALS, SIGNALS, generator=w.generator) / SIGNALS**0.5
    into[SIGNALS:LATENTS, :SIGNALS] = mixture * deviation[SIGNALS:, None]
    w["conv1.bias"][:LATENTS] = mean
    w.conv("conv2", LATENTS, LATENTS, (1, 1, 1))[..., 0, 0, 0] = torch.diag(1 / deviation)
    w["conv2.bias"][:] = -mean / deviation


def _decoder(w: _Weights, width: int) -> None:
    widths = [width * m for m in (MULTIPLIERS[-1], *reversed(MULTIPLIERS))]
    first = w.conv("decoder.conv1", widths[0], LATENTS, (3, 3, 3))[:, :, 2, 1, 1]
    first[1 : 1 + SIGNALS, :SIGNALS] = torch.eye(SIGNALS)
    w["decoder.conv1.bias"][0] = CONSTANT
    w.middle("decoder.middle", widths[0])
    hat = torch.tensor([1.0, 2.0, 1.0]) / 4
    blur = hat[:, None] * hat
    layer = 0
    for stage, (columns, rows) in enumerate(pairwise(widths)):
        columns = columns // 2 if stage else columns
        for inner in (columns, rows, rows):
            w.residual(f"decoder.upsamples.{layer}", inner, rows)
            layer += 1
        if stage == 3:
            break
        name = f"decoder.upsamples.{layer}"
        w.conv(f"{name}.resample.1", rows // 2, rows, (3, 3))[:] = torch.eye(rows // 2, rows)[:, :, None, None] * blur
        if stage < 2:
            time = w.conv(f"{name}.time_conv", 2 * rows, rows, (3, 1, 1))[:, :, 2, 0, 0]
            kept = 2 if stage == 0 else 1  # slots of each of the two frames made here
            for frame in range(2):
                time[frame * rows, 0] = 1
                for slot in range(kept):
                    here = slice(frame * rows + 1 + COLOURS * slot, frame * rows + 1 + COLOURS * (slot + 1))
                    time[here, _slot(frame * kept + slot)] = COLOUR
        else:
            negative = w[f"{name}.resample.1.weight"][_slot(1)]
            negative[:] = 0
            negative[:, _slot(0)] = -COLOUR[:, :, None, None] * blur
        layer += 1
    w.gamma("decoder.head.0", width, 3)
    head = w.conv("decoder.head.2", COLOURS, width, (3, 3, 3))[:, :, 2, 1, 1]
    head[:, _slot(0)] = COLOUR * CONSTANT / width**0.5
    head[:, _slot(1)] = -COLOUR * CONSTANT / width**0.5


def write_vae(path: Path, width: int = 8, dtype: torch.dtype = torch.float32, seed: int = 0) -> Path:
    """Write the VAE (4 MB at width 8, the least that the path needs) and return the path."""
    path = Path(path)
    weights = _Weights(seed)
    _encoder(weights, width)
    _latents(weights)
    _decoder(weights, width)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: weight.to(dtype).contiguous() for key, weight in weights.items()}, path)
    return path
