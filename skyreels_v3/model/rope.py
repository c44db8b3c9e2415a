"""Rotary position tables over time, height and width.

Source: RoFormer (arXiv 2104.09864), in the three-axis form of Wan 2.1: of a head's d dims, d - 4 (d // 6) turn with
time, 2 (d // 6) with height, 2 (d // 6) with width; neighbouring dims form a pair; theta is 10000.
"""

from collections import OrderedDict

import torch

from .sequence import Layout

THETA = 10000.0


def rotary_angles(positions: torch.Tensor, dim: int) -> torch.Tensor:
    """Angles [n, dim / 2] in float64 for positions [n]."""
    rates = THETA ** -(torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    return torch.outer(positions.to(torch.float64), rates)


def rotary_table(layout: Layout, head_dim: int) -> torch.Tensor:
    """(cos, sin) for every token, [L, head_dim / 2, 2] float32.

    Angles are formed in float64: at the shot prefix's position 1024, bfloat16 positions are 19 % wrong.
    """
    side = 2 * (head_dim // 6)
    rows = rotary_angles(torch.arange(layout.height), side)
    columns = rotary_angles(torch.arange(layout.width), side)
    parts = []
    for span in layout.spans:
        times = rotary_angles(torch.arange(span.position, span.position + span.frames), head_dim - 2 * side)
        shape = (span.frames, layout.height, layout.width, -1)
        grid = [
            times[:, None, None].expand(shape),
            rows[None, :, None].expand(shape),
            columns[None, None, :].expand(shape),
        ]
        parts.append(torch.cat(grid, dim=-1).flatten(0, 2))
    angles = torch.cat(parts)
    return torch.stack([angles.cos(), angles.sin()], dim=-1).to(torch.float32)


class RotaryTables:
    """The tables of the last few layouts, on their device, so that a sampler's steps share one."""

    def __init__(self, head_dim: int, keep: int = 2):
        self.head_dim = head_dim
        self.keep = keep
        self.tables: OrderedDict[tuple[Layout, torch.device], torch.Tensor] = OrderedDict()

    def get(self, layout: Layout, device: torch.device) -> torch.Tensor:
        """Table [L, head_dim / 2, 2] float32 on `device`."""
        key = (layout, device)
        if key not in self.tables:
            self.tables[key] = rotary_table(layout, self.head_dim).to(device)
        self.tables.move_to_end(key)
        while len(self.tables) > self.keep:
            self.tables.popitem(last=False)
        return self.tables[key]
