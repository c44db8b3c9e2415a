"""Makes the checkout importable as the package `pack` outside ComfyUI.

A custom node pack has no fixed package name (ComfyUI names it after its folder) and its imports are relative, so tests
and tools need some parent package: `from pack.skyreels_v3.model.transformer import SkyReelsTransformer`.
"""

from pathlib import Path

__path__ = [str(Path(__file__).resolve().parents[1])]
