"""Rotary position tables over time, height and width.

Source: RoFormer (arXiv 2104.09864), in the three-axis form of Wan 2.1: of a head's d dims, d - 4 (d // 6) turn with
time, 2 (d // 6) with height, 2 (d // 6) with width; neighbouring dims form a pair; theta is 10000.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch

from .sequence import Layout

THETA = 10000.0


def rotary_angles(positions: torch.Tensor, dim: int) -> torch.Tensor:
    """Angles [n, dim / 2] in float64 for positions [n]."""
    rates = THETA ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    return torch.outer(positions.to(torch.float64), rates)


@dataclass(frozen=True)
class Rope:
    """How tokens are placed and turned, where an artist changes it; each position is scale * position + shift.

    embed: of positions [1, L, 3] (time, height, width) the rotations [1, 1, L, head_dim / 2, 2, 2] (cos, -sin; sin,
    cos) instead of ours.
    """

    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)  # time, height, width
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    embed: Callable[[torch.Tensor], torch.Tensor] | None = None

    def positions(self, layout: Layout) -> torch.Tensor:
        """Positions [L, 3] in time, height and width of every token, float64.

        What stands apart in time, as the prefix of another shot, stays as far away as it is.
        """
        sides = [torch.arange(size, dtype=torch.float64) for size in (layout.height, layout.width)]
        rows, columns = (side * self.scale[axis] + self.shift[axis] for axis, side in enumerate(sides, 1))
        parts, start, end = [], self.shift[0], 0
        for span in layout.spans:
            start += span.position - end
            times = start + self.scale[0] * torch.arange(span.frames, dtype=torch.float64)
            parts.append(torch.cartesian_prod(times, rows, columns))
            start, end = start + self.scale[0] * span.frames, span.position + span.frames
        return torch.cat(parts)


AS_TRAINED = Rope()


def rotary_table(layout: Layout, head_dim: int, rope: Rope = AS_TRAINED) -> torch.Tensor:
    """(cos, sin) for every token, [L, head_dim / 2, 2] float32.

    Angles are formed in float64: at the shot prefix's position 1024, bfloat16 positions are 19 % wrong.
    """
    positions = rope.positions(layout)
    if rope.embed is not None:
        return rope.embed(positions[None].float())[0, 0, ..., 0].float().contiguous()
    side = 2 * (head_dim // 6)
    widths = head_dim - 2 * side, side, side
    angles = torch.cat([rotary_angles(positions[:, axis], width) for axis, width in enumerate(widths)], dim=-1)
    return torch.stack([angles.cos(), angles.sin()], dim=-1).to(torch.float32)


class RotaryTables:
    """The tables of the last few layouts, on their device, so that a sampler's steps share one."""

    def __init__(self, head_dim: int, keep: int = 2):
        self.head_dim = head_dim
        self.keep = keep
        self.tables: OrderedDict[tuple[Layout, torch.device, Rope], torch.Tensor] = OrderedDict()

    def get(self, layout: Layout, device: torch.device, rope: Rope) -> torch.Tensor:
        """Table [L, head_dim / 2, 2] float32 on `device`."""
        key = (layout, device, rope)
        if key not in self.tables:
            self.tables[key] = rotary_table(layout, self.head_dim, rope).to(device)
        self.tables.move_to_end(key)
        while len(self.tables) > self.keep:
            self.tables.popitem(last=False)
        return self.tables[key]
