"""The Wan 2.1 VAE as this pack runs it, beside ComfyUI's own loop over the same weights: time, memory and error.

On the CPU a narrow network that hands pictures through (dev/samples/tiny_vae.py), so that its error is one of pictures.
On a graphics card the real size with random weights, at 480p and 720p: time and memory.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.benchmarks.harness import aims, measure


@dataclass(frozen=True)
class Size:
    """width: channels of the widest pictures.  latents: latent frames.  height, length: of them, latent pixels."""

    width: int
    latents: int
    height: int
    length: int
    rounds: int


CPU = {"narrow": Size(24, 2, 12, 16, 3)}
CARD = {"480p": Size(96, 21, 60, 104, 3), "720p": Size(96, 31, 90, 160, 2)}
QUICK = {"tiny": Size(8, 2, 4, 4, 2)}

AIMS = [
    aims.Aim(
        f"VAE decode, {size}: speed",
        2.0,
        lambda found, s=size: found["sizes"][s]["speed"],
        True,
        True,
        of="ComfyUI's float32",
    )
    for size in CARD
] + [
    aims.Aim(
        "VAE decode, bf16: error",
        50.0,
        lambda found: found["sizes"]["narrow"]["psnr"]["pack, bf16"],
        least=True,
        unit=" dB",
        of="float32",
    )
]


def network(size: Size, device):
    """ComfyUI's WanVAE: on the CPU the one that hands pictures through, on a card random weights."""
    import comfy.ldm.wan.vae
    import torch

    def made():
        return comfy.ldm.wan.vae.WanVAE(dim=size.width, z_dim=16, temperal_downsample=[False, True, True])

    if device.type == "cpu":
        from safetensors.torch import load_file

        from pack.dev.samples.tiny_vae import write_vae

        vae = made()
        with tempfile.TemporaryDirectory() as folder:
            vae.load_state_dict(load_file(write_vae(Path(folder, "vae.safetensors"), size.width)))
        return vae.eval()
    with torch.device("meta"):
        vae = made()
    vae.to_empty(device=device)
    torch.manual_seed(0)
    for name, parameter in vae.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.ones_(parameter)
        elif parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        else:
            torch.nn.init.zeros_(parameter)
    return vae.eval()


def picture(size: Size, device):
    """A smooth moving picture [1, 3, F, H, W] in [-1, 1]."""
    import torch

    frames = 4 * (size.latents - 1) + 1
    coarse = torch.randn(1, 3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    shape = (frames, 8 * size.height, 8 * size.length)
    return torch.nn.functional.interpolate(coarse, shape, mode="trilinear").clamp(-1, 1).to(device)


def of_size(size: Size, device) -> dict:
    import torch

    from pack.kernels.half_precision import in_hardware
    from pack.skyreels_v3.vae import causal as causal_vae

    high = network(size, device)
    low = network(size, device).bfloat16() if in_hardware(torch.bfloat16, device) else None
    video = picture(size, device)

    def encoded(vae, pixels):
        pieces = causal_vae.encode(vae, lambda start, stop: pixels[:, :, start:stop], pixels.shape[2])
        return torch.cat(list(pieces), dim=2).float()

    latents = encoded(high, video)

    def ours(vae, at_once=4):
        out = torch.empty(video.shape)

        def run():
            done = 0
            for piece in causal_vae.decode(vae, latents.to(next(vae.parameters()).dtype), at_once=at_once):
                out[:, :, done : done + piece.shape[2]] = piece
                done += piece.shape[2]
            return out

        return run

    def theirs(vae):
        return lambda: vae.decode(latents.to(next(vae.parameters()).dtype)).cpu().float()

    calls = {"ComfyUI, float32": theirs(high), "pack, float32": ours(high)}
    if low:
        calls |= {"ComfyUI, bf16": theirs(low), "pack, bf16": ours(low), "pack, bf16, a frame at a time": ours(low, 1)}
    exact = calls["ComfyUI, float32"]().clamp(-1, 1)
    psnr = {}
    for who, call in calls.items():
        square = (call().clamp(-1, 1) - exact).double().square().mean()
        psnr[who] = float(10 * torch.log10(4 / square.clamp(min=1e-14)))
    clock = time.perf_counter if device.type == "cuda" else time.thread_time
    seconds = measure.interleaved(
        {who: measure.waited_for(call, device) for who, call in calls.items()}, size.rounds, clock
    )
    reference = seconds["ComfyUI, float32"]
    of_bf16 = {}
    if low:
        wrong = (encoded(low, video.bfloat16()) - latents).norm() / latents.norm()
        of_bf16 = {
            "speed": 1 / measure.ratios(seconds["pack, bf16"], reference)["median"],
            "encode_error_bf16": float(wrong),
        }
    return {
        "size": vars(size),
        "seconds": {who: measure.summary(times) for who, times in seconds.items()},
        "ratio": {who: measure.ratios(times, reference) for who, times in seconds.items()},
        "peak_bytes": {who: measure.peak_allocated(call, device) for who, call in calls.items()},
        "psnr": psnr,
        **of_bf16,
    }


def measured(quick: bool) -> dict:
    import torch

    device = measure.device()
    measure.enter_comfyui(device.type == "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    sizes = QUICK if quick else CARD if device.type == "cuda" else CPU
    with torch.inference_mode():
        found = {name: of_size(size, device) for name, size in sizes.items()}
    return {"device": measure.device_name(device), "sizes": found}


def tables(result: dict) -> str:
    parts = []
    for name, found in result["sizes"].items():
        size, reference = found["size"], found["peak_bytes"]["ComfyUI, float32"]
        frames = 4 * (size["latents"] - 1) + 1
        head = f"decode, {name}: {8 * size['length']} x {8 * size['height']} x {frames}, {size['width']} channels"
        rows = [
            [
                who,
                f"{found['seconds'][who]['median_s']:.3g}",
                f"{found['ratio'][who]['median']:.3f}",
                f"{found['ratio'][who]['min']:.3f}",
                f"{found['peak_bytes'][who] / 1e6:.4g}",
                f"{found['peak_bytes'][who] / reference:.3f}",
                "" if who == "ComfyUI, float32" else f"{found['psnr'][who]:.1f}",
            ]
            for who in found["seconds"]
        ]
        columns = [head, "s", "ratio", "of the fastest runs", "peak (MB)", "ratio", "dB against float32"]
        parts.append(measure.table(columns, rows))
        if "encode_error_bf16" in found:
            parts.append(f"Encoded in bf16 instead of float32, latents are off by {found['encode_error_bf16']:.2%}.")
        else:
            parts.append("bf16 is unmeasured here: this processor has no units for it.")
    return "\n\n".join(parts)


if __name__ == "__main__":
    measure.main(measured)
