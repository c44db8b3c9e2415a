"""The transformers that stand side by side, with the same weights: this pack's, ComfyUI's and diffusers'."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from pack.benchmarks.harness import measure

TEXT_TOKENS, TEXT_WIDTH = 512, 4096
WHO = {"comfyui": "ComfyUI", "diffusers": "diffusers", "pack": "this pack"}
SPREAD = 0.02  # of the random weights


@dataclass(frozen=True)
class Video:
    """What all of them are given.

    latents: [1, 16, frames, height, width].  text: [1, 512, 4096].  timestep: [1].
    prefix: how many of the first frames are clean, 0 for none.
    """

    latents: object
    text: object
    timestep: object
    prefix: int = 0

    @property
    def tokens_of_a_frame(self) -> int:
        return self.latents.shape[-2] * self.latents.shape[-1] // 4

    @property
    def tokens(self) -> int:
        return self.latents.shape[2] * self.tokens_of_a_frame

    def by_frame(self):
        """A timestep for every frame, [1, frames]."""
        timesteps = self.timestep.repeat(1, self.latents.shape[2])
        timesteps[:, : self.prefix] = 0
        return timesteps


def own(params, device, dtype, comfyui: bool):
    """This pack's transformer with random weights. comfyui: with the layers of ComfyUI, else with PyTorch's."""
    import torch

    from pack.skyreels_v3.model.transformer import SkyReelsTransformer

    operations = torch.nn
    if comfyui:
        import comfy.ops

        operations = comfy.ops.disable_weight_init
    network = SkyReelsTransformer(params, operations=operations, device="meta", dtype=dtype).to_empty(device=device)
    fill(network)
    return network.eval().requires_grad_(False)


def fill(network) -> None:
    """Random weights, the same each time."""
    import torch

    torch.manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=SPREAD)


def velocity(network, video: Video, runtime):
    """What this pack's transformer predicts for the frames that are not clean."""
    from pack.skyreels_v3.model.sequence import Segment, extension_segments

    if not video.prefix:
        segments = [Segment(video.latents, 0, predicted=True)]
    else:
        segments = extension_segments(video.latents[:, :, video.prefix :], video.latents[:, :, : video.prefix])
    return network(segments, video.timestep, video.text, runtime=runtime)


class Comfyui:
    """ComfyUI's WanModel."""

    def __init__(self, network):
        import comfy.ldm.wan.model
        import comfy.ops

        params, weight = network.params, network.head.head.weight
        self.network = comfy.ldm.wan.model.WanModel(
            model_type="t2v",
            in_dim=params.in_dim,
            out_dim=params.out_dim,
            text_dim=params.text_dim,
            dim=params.dim,
            ffn_dim=params.ffn_dim,
            num_heads=params.num_heads,
            num_layers=params.num_layers,
            operations=comfy.ops.disable_weight_init,
            device=weight.device,
            dtype=weight.dtype,
        )
        self.network.load_state_dict(network.state_dict())
        self.network.eval().requires_grad_(False)

    def __call__(self, video: Video):
        # It knows clean frames by a timestep for every frame.
        timestep = video.by_frame() if video.prefix else video.timestep
        return self.network(video.latents, timestep, video.text)


class Diffusers:
    """diffusers' WanTransformer3DModel."""

    def __init__(self, network):
        import torch
        from diffusers import WanTransformer3DModel

        from pack.model_loaders.architecture.key_maps import DIFFUSERS

        params, weight = network.params, network.head.head.weight
        with torch.device(weight.device), _default_dtype(weight.dtype):
            self.network = WanTransformer3DModel(
                in_channels=params.in_dim,
                out_channels=params.out_dim,
                text_dim=params.text_dim,
                ffn_dim=params.ffn_dim,
                num_attention_heads=params.num_heads,
                attention_head_dim=params.dim // params.num_heads,
                num_layers=params.num_layers,
            )
        weights = network.state_dict()
        self.network.load_state_dict({name: weights[wan] for wan, name in DIFFUSERS.inverted().rename(weights).items()})
        self.network.eval().requires_grad_(False)

    def __call__(self, video: Video):
        # It knows clean frames by a timestep for every token.
        timestep = video.timestep
        if video.prefix:
            timestep = video.by_frame().repeat_interleave(video.tokens_of_a_frame, dim=1)
        return self.network(video.latents, timestep, video.text, return_dict=False)[0]


@contextlib.contextmanager
def _default_dtype(dtype):
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def enter(cpu: bool) -> dict[str, str]:
    """Makes what is there importable; returns who is missing and why: {"diffusers": "not installed"}."""
    from pack.dev.setup.environment import SetupError

    missing = {}
    try:
        measure.enter_comfyui(cpu)
    except SetupError:
        missing["comfyui"] = "not there"
    try:
        import diffusers  # noqa: F401
    except ImportError:
        missing["diffusers"] = "not installed"
    return missing
