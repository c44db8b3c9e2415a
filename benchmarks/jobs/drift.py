"""How far colours walk over 60 s (12 rolls of 5 s), without and with Extend Video's colour anchor.

Every roll runs through the node's own function with the tiny Wan VAE. Random weights make no picture that could
drift, so a stand-in takes the transformer's place: it plays the prefix back and forth, as a model that goes on with
what it sees, with a slight cast and loss of contrast. Nearly all of the drift is the tiny VAE's own, whose every
round trip changes the colours: after 4 rolls 22.2 of 22.4 without the stand-in's cast. What this shows is how the
anchor holds against a strong, steady drift, not how much the real model and VAE drift.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.benchmarks.harness import measure
from pack.benchmarks.jobs import extend

SECONDS = 60
WIDTH, HEIGHT = 64, 48
STRENGTHS = (0.0, 0.5, 1.0)
CONTRAST = 0.98  # of the latents, every roll
CAST = (0.04, 0.0, -0.04)  # what red, green and blue gain in a roll: warmer; the latents' deviation is about 1


def stand_in(roll, prefix, noise):
    """The prefix's latents back and forth for as long as the roll is, drifting; motion, and no seam."""
    import torch

    # Without the first latent frame, which stands for one frame and not for four.
    last = prefix.shape[2] - 1
    there_and_back = [*reversed(range(1, last)), *range(2, last + 1)]
    order = [there_and_back[index % len(there_and_back)] for index in range(roll.latent_frames)]
    # The tiny VAE's channels are the three colours of one frame after those of another.
    cast = torch.tensor([CAST[channel % 3] for channel in range(prefix.shape[1])]).view(1, -1, 1, 1, 1)
    return prefix[:, :, order] * CONTRAST + cast


def roll_distances(encode, decode, source, rolls, strength: float) -> list[float]:
    """Lab distance of every roll to the first one."""
    import torch

    from pack.skyreels_v3.images.convert import tail_to_signed
    from pack.skyreels_v3.jobs.extension.roll import Settings, Tail, Tools, run_roll
    from pack.skyreels_v3.measures.colours import lab_distance

    tail, first, distances = Tail.of_source(source), None, []
    for roll in rolls:
        made, settings = [], Settings(colour_anchor=strength)
        tail = run_roll(roll, tail, Tools(encode, decode, stand_in), settings, made.append)
        pixels = tail_to_signed(torch.cat(made).permute(3, 0, 1, 2)[None])
        first = pixels if first is None else first
        distances.append(lab_distance(pixels, first))
    return distances


def measured(quick: bool) -> dict:
    seconds, strengths = (10, (0.0, 1.0)) if quick else (SECONDS, STRENGTHS)
    with tempfile.TemporaryDirectory(prefix="skyreels-bench-") as folder:
        base = Path(folder)
        extend.write_files(base)
        models = extend.enter(base)
        import torch

        from pack.nodes.encoders.vae import decoder, encoder
        from pack.skyreels_v3.jobs.extension.plan import FPS, LONGEST_PREFIX, continue_rolls
        from pack.skyreels_v3.jobs.extension.plan import RollPlan as Roll
        from pack.skyreels_v3.video.sources.file import FileSource
        from pack.skyreels_v3.video.sources.source import last_frames

        extend.write_clip(base / "clip.mp4", extend.SOURCE_FRAMES, WIDTH, HEIGHT)
        source = last_frames(FileSource(base / "clip.mp4"), LONGEST_PREFIX, FPS)
        lengths = continue_rolls(seconds, False, len(source))
        rolls = [Roll(0, 1, "continue", "", part, len(lengths), *one) for part, one in enumerate(lengths, start=1)]
        encode, decode = encoder(models["vae"]), decoder(models["vae"])
        with torch.inference_mode():
            walks = {str(one): roll_distances(encode, decode, source, rolls, one) for one in strengths}
    return {"rolls": len(rolls), "seconds": seconds, "contrast": CONTRAST, "cast": CAST, "distance_to_first": walks}


def tables(result: dict) -> str:
    walks = result["distance_to_first"]
    shown = [2, (result["rolls"] + 2) // 2, result["rolls"]]
    rows = []
    for strength, walk in walks.items():
        label = "without" if not float(strength) else f"colour_anchor {float(strength):g}"
        share = walk[-1] / walks["0.0"][-1]
        rows.append([label, *(f"{walk[roll - 1]:.2f}" for roll in shown), f"**{share:.3f}**"])
    head = [f"mean Lab distance to the first of {result['rolls']} rolls", *(f"roll {roll}" for roll in shown)]
    return measure.table([*head, "of without"], rows)


if __name__ == "__main__":
    measure.main(measured)
