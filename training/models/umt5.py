"""umt5 of any size for training: the layers of the text encoder of Wan, with the key names of its files.

Pre-norm blocks without biases; attention without scale and with a learned bias for the distance of two words, in every
block; a gated feed-forward. In float32 it computes what ComfyUI computes from the same file.
Sources: Raffel et al., "Exploring the Limits of Transfer Learning", 2020; Chung et al., "UniMax", 2023.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

BUCKETS = 32  # of distances: half for what comes before, half for what comes after
FARTHEST = 128  # places; all beyond are one bucket


class Norm(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, head_width: int):
        super().__init__()
        inner = heads * head_width
        self.q, self.k, self.v = (nn.Linear(width, inner, bias=False) for _ in range(3))
        self.o = nn.Linear(inner, width, bias=False)
        self.relative_attention_bias = nn.Embedding(BUCKETS, heads)
        self.heads = heads
        nn.init.normal_(self.q.weight, std=(width * head_width) ** -0.5)
        nn.init.normal_(self.relative_attention_bias.weight, std=0.1)

    def forward(self, x: Tensor, hidden: Tensor, buckets: Tensor) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        scores = q @ k.transpose(-1, -2) + self.relative_attention_bias(buckets).permute(2, 0, 1)
        scores = scores.masked_fill(hidden[:, None, None], -torch.inf)
        return self.o((scores.softmax(-1) @ v).transpose(1, 2).flatten(-2))


class SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int, head_width: int):
        super().__init__()
        self.SelfAttention = Attention(width, heads, head_width)
        self.layer_norm = Norm(width)

    def forward(self, x: Tensor, hidden: Tensor, buckets: Tensor) -> Tensor:
        return x + self.SelfAttention(self.layer_norm(x), hidden, buckets)


class Gated(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.wi_0, self.wi_1 = nn.Linear(width, inner, bias=False), nn.Linear(width, inner, bias=False)
        self.wo = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.wo(nn.functional.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))


class FeedForward(nn.Module):
    def __init__(self, width: int, inner: int):
        super().__init__()
        self.DenseReluDense = Gated(width, inner)
        self.layer_norm = Norm(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.DenseReluDense(self.layer_norm(x))


class Umt5(nn.Module):
    """tokens int64 [B, N] and real bool [B, N], False at padding, to features [B, N, width], 0 at padding."""

    def __init__(self, vocabulary: int, width: int, layers: int, heads: int, head_width: int, inner: int):
        super().__init__()
        self.shared = nn.Embedding(vocabulary, width)
        block = [
            nn.ModuleDict(
                {"layer": nn.ModuleList([SelfAttention(width, heads, head_width), FeedForward(width, inner)])}
            )
            for _ in range(layers)
        ]
        self.encoder = nn.ModuleDict({"block": nn.ModuleList(block), "final_layer_norm": Norm(width)})

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> "Umt5":
        """The encoder that a file holds; its sizes are told from the shapes. Other keys are left out."""
        first = "encoder.block.0.layer"
        heads = weights[f"{first}.0.SelfAttention.relative_attention_bias.weight"].shape[1]
        model = cls(
            *weights["shared.weight"].shape,
            layers=sum(key.endswith(".SelfAttention.q.weight") for key in weights),
            heads=heads,
            head_width=weights[f"{first}.0.SelfAttention.q.weight"].shape[0] // heads,
            inner=weights[f"{first}.1.DenseReluDense.wo.weight"].shape[1],
        )
        model.load_state_dict({key: weights[key].float() for key in model.state_dict()})
        return model.requires_grad_(False).eval()

    def forward(self, tokens: Tensor, real: Tensor) -> Tensor:
        x, buckets = self.shared(tokens), distance_buckets(tokens.shape[1])
        for block in self.encoder["block"]:
            attention, feed_forward = block["layer"]
            x = feed_forward(attention(x, ~real, buckets))
        return self.encoder["final_layer_norm"](x) * real[..., None]


def distance_buckets(length: int) -> Tensor:
    """int64 [N, N]: the bias of a word (row) for another (column). Near places have their own, far ones share one."""
    places = torch.arange(length)
    distance = places[None] - places[:, None]
    near, half = BUCKETS // 4, BUCKETS // 2
    steps = torch.log(distance.abs().clamp(min=1) / near) / math.log(FARTHEST / near) * (half - near)
    far = (near + steps.long()).clamp(max=half - 1)
    return (distance > 0) * half + torch.where(distance.abs() < near, distance.abs(), far)
