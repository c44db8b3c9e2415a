"""The VAE at its real size: memory beside what the pack plans, and what fewer bits cost."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pack.benchmarks.card.bench import Bench, Row, relative
from pack.benchmarks.files import vae
from pack.benchmarks.harness import measure
from pack.skyreels_v3.vae import causal, memory

LATENTS = 4  # latent frames, 13 pictures
PICTURES = {"480p": (60, 104), "720p": (90, 160)}
CHANNELS = 96


def pictures(bench: Bench) -> Iterator[Row]:
    """Encoding and decoding 13 frames: time, peak beside the plan, error beside float32 without TF32."""
    measure.enter_comfyui(cpu=False)
    networks = {dtype: vae.network(vae.Size(CHANNELS, 1, 1, 1, 1), bench.device).to(dtype) for dtype in _dtypes(bench)}
    unfolds = causal.unfolds(bench.device)
    for name, (height, width) in bench.while_there_is_time(bench.sizes(PICTURES.items())):
        latent_frames = 2 if bench.dry else LATENTS
        size = vae.Size(CHANNELS, latent_frames, height, width, 1)
        video = vae.picture(size, torch.device("cpu"))
        torch.manual_seed(0)
        latents = torch.randn(1, 16, latent_frames, height, width, device=bench.device)
        exact: dict[memory.Direction, torch.Tensor] = {}
        ways = [
            (direction, dtype, tf32, at_once)
            for direction in (memory.Direction.DECODE, memory.Direction.ENCODE)
            for dtype, tf32 in [(torch.float32, False), (torch.float32, True), (bench.dtype, False)]
            for at_once in ((4, 1) if direction is memory.Direction.DECODE else (4,))
        ]
        for direction, dtype, tf32, at_once in bench.while_there_is_time(ways):
            what: Row = {
                "VAE": f"{direction.value} {name}",
                "in": "TF32" if tf32 else str(dtype).removeprefix("torch."),
                "frames at once": at_once,
            }
            planned = memory.vae_bytes(direction, height, width, CHANNELS, dtype.itemsize, at_once, unfolds)
            needed = memory.needed(planned)
            if needed > bench.room():
                yield {**what, "failed": f"needs {needed / 2**30:.1f} GiB of the card"}
                continue

            def run(network=networks[dtype], direction=direction, dtype=dtype, at_once=at_once, video=video, z=latents):
                if direction is memory.Direction.DECODE:
                    pieces = causal.decode(network, z.to(dtype), at_once=at_once)
                else:
                    pieces = causal.encode(
                        network, lambda start, stop: video[:, :, start:stop].to(bench.device, dtype), video.shape[2]
                    )
                return torch.cat([piece.cpu() for piece in pieces], dim=2)

            def measured(run=run, tf32=tf32, direction=direction, planned=planned, exact=exact) -> Row:
                torch.backends.cudnn.allow_tf32 = tf32
                result = run()
                peak = measure.peak_allocated(run, bench.device)
                seconds = bench.seconds(run)
                return {
                    "s": seconds,
                    "peak (GB)": peak / 1e9,
                    "peak, of the plan": peak / planned,
                    "error": relative(result, exact.setdefault(direction, result)),
                }

            yield bench.tried(what, measured)


def _dtypes(bench: Bench) -> set[torch.dtype]:
    return {torch.float32, bench.dtype}
