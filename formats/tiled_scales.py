"""The order in which tensor cores read the scales of blocks: in tiles of 128 rows and 4 blocks.

Source: cuBLAS, "1D Block Scaling Factors Layout", https://docs.nvidia.com/cuda/cublas/#d-block-scaling-factors-layout.
"""

import torch
from einops import rearrange


def untiled(scales: torch.Tensor, rows: int, blocks: int) -> torch.Tensor:
    """scales: one byte each, in tiles, of any shape -> [rows, blocks], without the padding of the tiles.

    Within a tile, row r and block b lie at 16 (r mod 32) + 4 (r div 32) + b; tiles follow each other along a row.
    """
    tiles = scales.reshape(-(-rows // 128), -(-blocks // 4), 32, 4, 4)
    return rearrange(tiles, "down across row quarter block -> (down quarter row) (across block)")[:rows, :blocks]
