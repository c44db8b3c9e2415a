"""How far the colours of two clips are apart."""

import torch

from pack.skyreels_v3.images.colour import check_clip, rgb_to_lab


def lab_distance(frames: torch.Tensor, reference: torch.Tensor) -> float:
    """How far the colours of frames [1, 3, T, H, W] are from those of a reference [1, 3, R, h, w], in Lab units.

    The mean over the frames of sqrt(|mean - mean'|^2 + |deviation - deviation'|^2), where the reference's are means
    over its frames. It compares how much of which colour there is, not pixels, so motion counts for nothing; a cast
    of the whole picture counts fully (about 2.3 can just be seen), and so does a loss of contrast.
    Raises InputError for anything but clips of three colours.
    """
    check_clip(frames, "frames")
    check_clip(reference, "reference")
    wanted = _frame_statistics(reference).mean(0)
    return (_frame_statistics(frames) - wanted).norm(dim=1).mean().item()


def _frame_statistics(clip: torch.Tensor) -> torch.Tensor:
    """Lab mean and standard deviation of every frame, [T, 6] float64 on the CPU."""
    rows = []
    for frame in clip[0].float().unbind(1):
        spread, mean = torch.std_mean(rgb_to_lab((frame + 1) * 0.5).flatten(1), dim=1, correction=0)
        rows.append(torch.cat([mean, spread]))
    return torch.stack(rows).double().cpu()
