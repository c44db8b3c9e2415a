"""The nano transformers: their sizes and how they start."""

import math

import torch
from torch import nn

from ...skyreels_v3.model.params import AudioParams, TransformerParams
from ...skyreels_v3.model.transformer import SkyReelsTransformer
from ...skyreels_v3.recipes import Job

SIZES = {"dim": 192, "ffn_dim": 448, "num_heads": 3, "num_layers": 6, "text_dim": 64}
NANO = TransformerParams(**SIZES)
NANO_AVATAR = TransformerParams(
    **SIZES, in_dim=36, image_dim=64, audio=AudioParams(width=32, hidden=48, tokens=8, dim=64)
)
CONDITION = NANO_AVATAR.in_dim - NANO.in_dim  # channels of the avatar's mask and image
SILENT_AT_FIRST = ("self_attn.o", "cross_attn.o", "ffn.2", "audio_cross_attn.proj", "head.head")


def params_of(job: Job) -> TransformerParams:
    return NANO_AVATAR if job is Job.AVATAR else NANO


def new_transformer(params: TransformerParams, seed: int = 0) -> SkyReelsTransformer:
    """With weights to start from: every block hands its input on until it has learnt something."""
    torch.manual_seed(seed)
    model = SkyReelsTransformer(params)
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv3d)):
            nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            nn.init.zeros_(module.bias)
            if name.endswith(SILENT_AT_FIRST):
                nn.init.zeros_(module.weight)
    for name, parameter in model.named_parameters():
        if name.endswith("modulation"):
            nn.init.normal_(parameter, std=params.dim**-0.5)
    # a gate that starts at nothing would keep a block silent for long: one is open
    with torch.no_grad():
        for block in model.blocks:
            block.modulation[:, [2, 5]] += 1
    return model


def avatar_from(base: SkyReelsTransformer, seed: int = 0) -> SkyReelsTransformer:
    """The avatar's network with everything that a network without speech has learnt."""
    model = new_transformer(NANO_AVATAR, seed)
    known = {name: tensor for name, tensor in base.state_dict().items() if name != "patch_embedding.weight"}
    model.load_state_dict(known, strict=False)
    with torch.no_grad():
        model.patch_embedding.weight[:, :-CONDITION] = base.patch_embedding.weight
        model.patch_embedding.weight[:, -CONDITION:] *= 1 / math.sqrt(2)
        for block in model.blocks:  # no one has looked at pictures yet
            nn.init.zeros_(block.cross_attn.v_img.weight)
    return model
