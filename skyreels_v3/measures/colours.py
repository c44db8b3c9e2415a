"""How far colours are apart: means and deviations in Lab, frame by frame."""

import torch

from ..images.colour import check_clip, rgb_to_lab


def lab_distance(frames: torch.Tensor, reference: torch.Tensor) -> float:
    """How far the colours of frames [1, 3, T, H, W] are from those of a reference [1, 3, R, h, w], both -1 to 1.

    Raises InputError for anything but clips of three colours.
    """
    check_clip(frames, "frames")
    check_clip(reference, "reference")
    rows, wanted = (
        torch.stack([colour_row((frame + 1) * 0.5) for frame in clip[0].float().unbind(1)])
        for clip in (frames, reference)
    )
    return distance(rows, wanted)


def distance(rows: torch.Tensor, reference: torch.Tensor) -> float:
    """How far colours are apart, in Lab units. rows, reference: of `colour_row`, [T, 6] and [R, 6].

    The mean over the frames of sqrt(|mean - mean'|^2 + |deviation - deviation'|^2), where the reference's are means
    over its frames. It compares how much of which colour there is, not pixels, so motion counts for nothing; a cast
    of the whole picture counts fully (about 2.3 can just be seen), and so does a loss of contrast.
    """
    return (rows - reference.mean(0)).norm(dim=1).mean().item()


def colour_row(rgb: torch.Tensor) -> torch.Tensor:
    """Lab mean and standard deviation of a frame's colours, [6] float64 on the CPU. rgb: [3, ...], 0 to 1."""
    spread, mean = torch.std_mean(rgb_to_lab(rgb).flatten(1), dim=1, correction=0)
    return torch.cat([mean, spread]).double().cpu()
