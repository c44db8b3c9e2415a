"""ViT of any size for training, as CLIP has it: the image encoder of the avatar, with its key names.

Patches and a class token with learned positions, a norm, pre-norm blocks. The avatar takes what goes into the last
block. In float32 it computes what ComfyUI computes from the same file.
Source: Dosovitskiy et al., "An Image is Worth 16x16 Words", 2020; Radford et al., CLIP, 2021.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attention


class Embeddings(nn.Module):
    def __init__(self, width: int, patch: int, tokens: int):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.randn(width) * 0.1)
        self.patch_embedding = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.position_embedding = nn.Embedding(tokens, width)
        nn.init.normal_(self.position_embedding.weight, std=0.1)

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(pixels), 1, -1)
        return torch.cat([first, patches], dim=1) + self.position_embedding.weight


class Mlp(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Layer(nn.Module):
    def __init__(self, width: int, heads: int, inner: int):
        super().__init__()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.self_attn, self.mlp = Attention(width, heads), Mlp(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Vit(nn.Module):
    """Pixels [B, 3, size, size], as CLIP takes them, to the hidden state before the last block [B, tokens, width]."""

    def __init__(self, width: int, heads: int, layers: int, inner: int, patch: int, tokens: int):
        super().__init__()
        self.vision_model = nn.ModuleDict(
            {
                "embeddings": Embeddings(width, patch, tokens),
                "pre_layrnorm": nn.LayerNorm(width),  # CLIP's own spelling
                "encoder": nn.ModuleDict({"layers": nn.ModuleList(Layer(width, heads, inner) for _ in range(layers))}),
                "post_layernorm": nn.LayerNorm(width),
            }
        )
        # Nobody takes what comes out of the last block: it begins, and stays, as one that changes nothing.
        last = self.vision_model["encoder"]["layers"][-1]
        for part in (last.self_attn.out_proj, last.mlp.fc2):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], heads: int) -> "Vit":
        """The encoder that a file holds; all sizes but the number of heads are told from the shapes."""
        embeddings, first = "vision_model.embeddings", "vision_model.encoder.layers.0"
        model = cls(
            width=len(weights[f"{embeddings}.class_embedding"]),
            heads=heads,
            layers=sum(key.endswith(".self_attn.q_proj.weight") for key in weights),
            inner=len(weights[f"{first}.mlp.fc1.bias"]),
            patch=weights[f"{embeddings}.patch_embedding.weight"].shape[-1],
            tokens=len(weights[f"{embeddings}.position_embedding.weight"]),
        )
        model.load_state_dict({key: weight.float() for key, weight in weights.items()})
        return model.requires_grad_(False).eval()

    def forward(self, pixels: Tensor) -> Tensor:
        x = self.vision_model["pre_layrnorm"](self.vision_model["embeddings"](pixels))
        for layer in self.vision_model["encoder"]["layers"][:-1]:
            x = layer(x)
        return x
