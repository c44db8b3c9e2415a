"""Colour match against drift: mean and spread of every frame are moved to those of a reference, in CIE Lab.

Source: match_and_blend_colors in avatar_util.py of the official code. Its conversion is kornia's, sRGB <-> Lab under
D65 with the constants below, which are rounded and not quite each other's inverse; the numbers depend on them.
"""

import math
from collections.abc import Sequence

import torch

from ..errors import InputError

# Linear sRGB -> XYZ under D65, and back.
XYZ_OF_RGB = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))
RGB_OF_XYZ = (
    (3.2404813432005266, -1.5371515162713185, -0.4985363261688878),
    (-0.9692549499965682, 1.8759900014898907, 0.0415559265582928),
    (0.0556466391351772, -0.2040413383665112, 1.0573110696453443),
)
WHITE = (0.95047, 1.0, 1.08883)  # XYZ of D65
LINEAR_BELOW = 0.008856  # of XYZ / white, where the cube root gives way to a line
LINEAR_SLOPE, LINEAR_START = 7.787, 4 / 29
CUBE_ABOVE = 0.2068966  # the same place on the other side of the root

# Lab units; an 8-bit step is about 0.3. Below it a channel is flat, and what spread it has is rounding: the official
# code divides by down to 1e-6 there, which blows rounding up to the reference's full spread (a grey or faded-out clip
# is tinted in blotches). Above it, the two are equal.
FLAT = 0.01


def rgb_to_lab(rgb: torch.Tensor) -> torch.Tensor:
    """CIE Lab (L 0 to 100) of sRGB, [3, ...] in 0 to 1, floating point; a little outside is allowed."""
    gamma = (rgb + 0.055).clamp_(min=0).div_(1.055).pow_(2.4)
    xyz = _mix(torch.where(rgb > 0.04045, gamma, rgb / 12.92), XYZ_OF_RGB)
    for channel, white in zip(xyz, WHITE):
        channel.div_(white)
    root = xyz.clamp(min=LINEAR_BELOW).pow_(1 / 3)
    x, y, z = torch.where(xyz > LINEAR_BELOW, root, xyz.mul_(LINEAR_SLOPE).add_(LINEAR_START))
    return torch.stack([(116 * y).sub_(16), (x - y).mul_(500), (y - z).mul_(200)])


def lab_to_rgb(lab: torch.Tensor) -> torch.Tensor:
    """sRGB [3, ...], clipped to 0 to 1, of CIE Lab."""
    y = (lab[0] + 16) / 116
    root = torch.stack([lab[1] / 500 + y, y, (y - lab[2] / 200).clamp_(min=0)])
    xyz = torch.where(root > CUBE_ABOVE, root**3, (root - LINEAR_START).div_(LINEAR_SLOPE))
    for channel, white in zip(xyz, WHITE):
        channel.mul_(white)
    linear = _mix(xyz, RGB_OF_XYZ)
    gamma = linear.clamp(min=0.0031308).pow_(1 / 2.4).mul_(1.055).sub_(0.055)
    return torch.where(linear > 0.0031308, gamma, linear.mul_(12.92)).clamp_(0, 1)


class ColourMatch:
    """Gives frames, one by one, the Lab mean and standard deviation of a reference, which are measured once.

    reference: [1, 3, R, h, w] in [-1, 1]; officially one frame of the frames' size, more are taken together.
    strength: 0 leaves the frames alone, 1 moves them all the way.
    Called with frames [1, 3, T, H, W] in [-1, 1], it returns their shape, dtype and device; inside, all is float32.
    Memory beyond the result is that of one frame.
    Raises InputError for a strength outside 0 to 1, and for anything but one clip of three colours.
    """

    def __init__(self, reference: torch.Tensor, strength: float = 1.0):
        check_clip(reference, "reference")
        if not 0 <= strength <= 1:
            raise InputError(f"The strength of the colour match is {strength}, but it must be 0 (off) to 1 (full).")
        self.reference = reference
        self.strength = strength
        self.target = None

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        check_clip(frames, "frames")
        if self.strength == 0:
            return frames
        if self.target is None:
            self.target = _statistics(rgb_to_lab(_unit(self.reference[0]).to(frames.device)))
        target_mean, target_spread = self.target
        matched = torch.empty_like(frames)
        for index in range(frames.shape[2]):
            rgb = _unit(frames[0, :, index])
            lab = rgb_to_lab(rgb)
            mean, spread = _statistics(lab)
            scale = target_spread / spread.clamp(min=FLAT)
            moved = lab_to_rgb(lab.sub_(_as(mean, lab)).mul_(_as(scale, lab)).add_(_as(target_mean, lab)))
            matched[0, :, index] = rgb.mul_(1 - self.strength).add_(moved, alpha=self.strength).mul_(2).sub_(1)
        return matched


def _statistics(lab: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [3] and standard deviation [3] over all pixels."""
    spread, mean = torch.std_mean(lab.flatten(1), dim=1, correction=0)
    return mean, spread


def _mix(channels: torch.Tensor, matrix: Sequence[Sequence[float]]) -> torch.Tensor:
    """A 3 x 3 matrix over the channels [3, ...], without a matmul, which TF32 would round to 10 bits on a GPU."""
    mixed = torch.empty_like(channels)
    for into, row in zip(mixed, matrix):
        torch.mul(channels[0], row[0], out=into)
        into.add_(channels[1], alpha=row[1]).add_(channels[2], alpha=row[2])
    return mixed


def _unit(signed: torch.Tensor) -> torch.Tensor:
    return (signed.float() + 1).mul_(0.5)


def _as(values: torch.Tensor, lab: torch.Tensor) -> torch.Tensor:
    return values.view(3, *(1,) * (lab.ndim - 1))


def check_clip(clip: torch.Tensor, name: str) -> None:
    """Raises InputError for anything but one clip [1, 3, F, H, W]. name: of the clip, in the sentence."""
    if clip.ndim != 5 or clip.shape[:2] != (1, 3) or math.prod(clip.shape) == 0:
        shape = " x ".join(map(str, clip.shape))
        raise InputError(f"The {name} of the colour match are {shape}, but 1 x 3 x frames x height x width is needed.")
