"""One forward over 1, 2, 4 ... cards of this machine beside one card by itself: time, gain, link, distance.

    python benchmarks/forward/gpus.py [FILE]      with ComfyUI's Python, on Linux, with the package ray; some minutes

Two blocks of the released width with random weights in bf16, at 480p and at 720p: forty blocks take twenty times as
long. Not part of run.py, because it needs several cards; with SKYREELS_GPUS_ON_CPU=2 it runs in tiny sizes on a
processor. FILE is where the numbers go as JSON, to be sent to us: docs/several-devices.md has only modelled ones.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
import torch

from pack.dev.samples.tiny_models import write_transformer
from pack.distributed import cluster
from pack.distributed.group import Group
from pack.distributed.ranks import Ranks
from pack.distributed.worker import DONE, Worker
from pack.skyreels_v3.jobs.estimates.sharing import Sharing
from pack.skyreels_v3.model.params import TransformerParams
from pack.skyreels_v3.recipes import Job

CARD = TransformerParams(num_layers=2)
TINY = TransformerParams(dim=384, ffn_dim=512, num_heads=3, num_layers=2)
SIZES = {"480p": (31, 60, 106), "720p": (31, 90, 160)}  # latent frames, height and width
TINY_SIZES = {"tiny": (3, 6, 10)}
SLOTS, ROUNDS = 4, 3


def message(size: tuple[int, int, int], dtype: torch.dtype) -> dict:
    """A forward of the reference job, as workers take it."""
    frames, height, width = size
    generator = torch.Generator().manual_seed(0)
    video, slots = (torch.randn(1, 16, n, height, width, generator=generator).to(dtype) for n in (frames, SLOTS))
    return {
        "segments": [(video, 0, False, True), (slots, frames, False, False)],
        "timestep": torch.tensor([600.0]),
        "text": torch.randn(1, 512, 4096, generator=generator).to(dtype),
        "given": {},
        "attention": "sdpa",
        "float32_time": [],
        "chunking": (16384, 8192, 4),
        "rope": ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0)),
        "loras": [],
        "sampling": "1",
        "cache": 10**9,
    }


def timed(forward) -> tuple[torch.Tensor, float]:
    """What a forward gives, and its seconds; the first one is not counted."""
    out, seconds = forward(), []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        forward()
        seconds.append(time.perf_counter() - start)
    return out, statistics.median(seconds)


def alone(spec: dict, messages: dict[str, dict], device: str) -> dict[str, tuple[torch.Tensor, float]]:
    """One card without a group, in this process."""
    worker = Worker(0, 1, device)
    worker.ranks = Ranks()
    assert worker.call("load", "m", 0, spec)[0] == DONE

    def forward(one: dict) -> torch.Tensor:
        status, velocity = worker.call("forward", 1, "m", one)
        assert status == DONE, velocity
        return velocity

    made = {name: timed(lambda one=one: forward(one)) for name, one in messages.items()}
    worker.call("drop", "m")
    return made


def together(group: Group, messages: dict, own: dict, params: TransformerParams) -> dict:
    """A group's time beside that of one card, and how far its numbers are from that one's."""
    made = {}
    for name, one in messages.items():
        out, seconds = timed(lambda one=one: group.forward("m", one))
        exact, single = own[name]
        error = ((out - exact).float().norm() / exact.float().norm()).item()
        tokens = sum(latents[0, 0].numel() // 4 for latents, *_ in one["segments"])
        sharing = Sharing(group.size, group.rate)
        modelled = single / sharing.seconds(single, params, tokens, out.element_size())
        made[name] = {"seconds": seconds, "gain": single / seconds, "modelled": modelled, "error": error}
        gain = f"{single / seconds:.2f} times one card (modelled {modelled:.2f})"
        print(f"  {name}: {seconds:.3f} s, {gain}, {error:.1e} from it")
    return made


def main(arguments: list[str]) -> int:
    cluster.check_possible()
    tiny = bool(cluster.stand_ins())
    params, sizes = (TINY, TINY_SIZES) if tiny else (CARD, SIZES)
    dtype, device = (torch.float32, "cpu") if tiny else (torch.bfloat16, "cuda:0")
    messages = {name: message(size, dtype) for name, size in sizes.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = write_transformer(Path(folder) / "SkyReels-V3-R2V.safetensors", Job.REFERENCE, params=params)
        spec = {"path": str(path), "job": Job.REFERENCE.value, "precision": "bf16", "products": "auto"}
        spec |= {"dtype": str(dtype).removeprefix("torch."), "maps": True}
        own = alone(spec, messages, device)
        cluster.connect()
        most = sum(cluster.cards().values())
        found = {
            "torch": torch.__version__,
            "alone": {name: seconds for name, (_, seconds) in own.items()},
            "groups": [],
        }
        for size in sorted({n for n in (1, 2, 4, 8, most) if n <= min(most, params.num_heads)}):
            group = Group(size)
            group.users.add("m")
            group.load("m", spec, path.stat().st_size)
            print(group.describe())
            entry = {"cards": size, "names": [card.name for card in group.cards], "gb_per_second": group.rate / 1e9}
            found["groups"].append({**entry, **together(group, messages, own, params)})
            group.end()
    if arguments:
        Path(arguments[0]).write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
