"""Self-attention of the 14B networks by every attention that is there: time and error.

Queries and keys are normal numbers, as after their norms; in a second case keys have a mean of their own in every
channel, as in trained networks, which is what 8-bit attentions find hard. The error is that of 256 queries against all
keys, beside the same in float32 (float64 where the inputs are float32).

On a graphics card the lengths are those of 480p x 81 frames, 720p x 81 and a long 720p; on the CPU small ones, in
float32, where ComfyUI's own choice is measured beside PyTorch's.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.benchmarks.harness import measure


@dataclass(frozen=True)
class Size:
    lengths: tuple[int, ...]
    heads: int
    rounds: int
    head_dim: int = 128


CPU = Size(lengths=(1365, 4096), heads=12, rounds=7)
CARD = Size(lengths=(32_760, 75_600, 126_000), heads=40, rounds=5)
QUICK = Size(lengths=(96,), heads=2, rounds=2)
QUERIES = 256  # whose exact results are computed
PYTORCH = {"cuDNN": "CUDNN_ATTENTION", "flash": "FLASH_ATTENTION", "efficient": "EFFICIENT_ATTENTION"}


def ways(device) -> dict:
    """Who -> a function of q, k, v [B, L, heads, d] that returns [B, L, heads * d]."""
    from pack import kernels
    from pack.kernels.attention_backends import BACKENDS

    found = {"PyTorch": kernels.attention}
    if device.type == "cpu":
        return found | comfyui()
    found |= {f"PyTorch, {name}": pytorch(backend) for name, backend in PYTORCH.items()}
    for backend in BACKENDS.values():
        if backend.installed() and backend.runs_on(device):
            # Without the dispatcher, which would measure PyTorch's in the place of one that fails.
            found[backend.name] = backend.run
    return found


def pytorch(name: str):
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def run(q, k, v):
        with sdpa_kernel([getattr(SDPBackend, name)]):
            return F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (q, k, v))).transpose(1, 2)

    return torch.inference_mode()(run)


def comfyui() -> dict:
    measure.enter_comfyui()
    import comfy.ldm.modules.attention as theirs

    def run(q, k, v):
        return theirs.attention_sub_quad(q.flatten(2), k.flatten(2), v.flatten(2), heads=q.shape[2])

    return {"ComfyUI's on a CPU": run}


def inputs(size: Size, length: int, dtype, device, mean: float) -> list:
    """q, k and v; mean: of the keys' channels, in standard deviations."""
    import torch

    generator = torch.Generator(device).manual_seed(0)
    shape = (1, length, size.heads, size.head_dim)
    q, k, v = (torch.randn(shape, generator=generator, device=device).to(dtype) for _ in "qkv")
    k += mean * torch.randn(shape[2:], generator=generator, device=device).to(dtype)
    return [q, k, v]


def errors(found: dict, given: list) -> dict[str, float | None]:
    """Who -> relative error of QUERIES results beside a wider dtype; None for who raises."""
    import torch

    q, k, v = given
    wide = torch.float64 if q.dtype == torch.float32 else torch.float32
    exact = torch.cat(
        [
            torch.nn.functional.scaled_dot_product_attention(
                *(part[:, :, [head]].to(wide).transpose(1, 2) for part in (q[:, :QUERIES], k, v))
            )
            for head in range(q.shape[2])
        ],
        dim=1,
    )
    exact = exact.transpose(1, 2).flatten(2)
    result = {}
    for who, way in found.items():
        try:
            own = way(q, k.clone(), v).flatten(2)[:, :QUERIES].to(wide)  # one of them writes to its keys
        except Exception as error:
            print(f"{who} is left out: {error}")
            result[who] = None
            continue
        result[who] = float((own - exact).norm() / exact.norm())
    return result


def timed(found: dict, given: list, rounds: int) -> dict[str, dict]:
    """Who -> seconds of a call."""
    import torch

    on_card = given[0].device.type == "cuda"

    def call(way):
        way(*given)
        if on_card:
            torch.cuda.synchronize()

    clock = time.perf_counter if on_card else time.thread_time
    seconds = measure.interleaved({who: lambda way=way: call(way) for who, way in found.items()}, rounds, clock)
    return {who: measure.summary(times) for who, times in seconds.items()}


def measured(quick: bool) -> dict:
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = QUICK if quick else CARD if device.type == "cuda" else CPU
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    found = ways(device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    result = {"device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu", "lengths": {}}
    result |= {"size": vars(size), "dtype": str(dtype).removeprefix("torch.")}
    with torch.inference_mode():
        for length in size.lengths:
            wrong = {name: errors(found, inputs(size, length, dtype, device, mean)) for name, mean in CASES.items()}
            found = {who: way for who, way in found.items() if all(one[who] is not None for one in wrong.values())}
            seconds = timed(found, inputs(size, length, dtype, device, 0.0), size.rounds)
            operations = 4 * length**2 * size.heads * size.head_dim
            result["lengths"][str(length)] = {
                who: {
                    **seconds[who],
                    "tflops": operations / seconds[who]["median_s"] / 1e12,
                    "error": {name: one[who] for name, one in wrong.items()},
                }
                for who in found
            }
    return result


CASES = {"normal": 0.0, "mean": 4.0}


def tables(result: dict) -> str:
    parts = [f"On {'the CPU, one thread' if result['device'] == 'cpu' else result['device']}, in {result['dtype']}."]
    for length, found in result["lengths"].items():
        rows = [
            [
                who,
                f"{one['median_s'] * 1e3:.1f}",
                f"{one['tflops']:.3g}",
                f"{one['median_s'] / found['PyTorch']['median_s']:.2f}",
                *(f"{one['error'][case]:.1e}" for case in CASES),
            ]
            for who, one in found.items()
        ]
        head = [f"{int(length):,} tokens", "ms", "TFLOP/s", "of PyTorch's", "error", "error, keys with a mean"]
        parts.append(measure.table(head, rows))
    return "\n\n".join(parts)


if __name__ == "__main__":
    measure.main(measured)
