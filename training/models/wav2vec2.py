"""wav2vec2 of any size for training, in the layout of base: the speech encoder of the avatar, with its key names.

Seven convolutions make 50 features a second, the first normalised over time; then transformer blocks that normalise
after each sum. It has the same parts by the same names as ComfyUI's class, so that `skyreels_v3.speech.encoder` runs it
too. Source: Baevski et al., "wav2vec 2.0", 2020.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Attention

CONVOLUTIONS = ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2))  # kernel and stride
PLACES, GROUPS = 128, 16  # of the convolution that tells positions


class Convolution(nn.Module):
    def __init__(self, into: int, width: int, kernel: int, stride: int):
        super().__init__()
        self.conv = nn.Conv1d(into, width, kernel, stride, bias=False)
        nn.init.kaiming_normal_(self.conv.weight)
        if into == 1:
            self.layer_norm = nn.GroupNorm(width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return F.gelu(self.layer_norm(x) if hasattr(self, "layer_norm") else x)


class FeatureExtractor(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.conv_layers = nn.ModuleList(
            Convolution(width if index else 1, width, *sizes) for index, sizes in enumerate(CONVOLUTIONS)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, None]
        for layer in self.conv_layers:
            x = layer(x)
        return x


class FeatureProjection(nn.Module):
    def __init__(self, conv_width: int, width: int):
        super().__init__()
        self.layer_norm, self.projection = nn.LayerNorm(conv_width), nn.Linear(conv_width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.layer_norm(x))


class Positions(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        conv = nn.Conv1d(width, width, PLACES, padding=PLACES // 2, groups=GROUPS)
        nn.init.normal_(conv.weight, std=2 * (PLACES * width) ** -0.5)
        nn.init.zeros_(conv.bias)
        self.conv = nn.utils.parametrizations.weight_norm(conv, dim=2)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.conv(x.transpose(1, 2))[:, :, :-1]).transpose(1, 2)


class FeedForward(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.intermediate_dense, self.output_dense = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.output_dense(F.gelu(self.intermediate_dense(x)))


class Layer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.attention, self.feed_forward = Attention(width, heads), FeedForward(width)
        self.layer_norm, self.final_layer_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer_norm(x + self.attention(x))
        return self.final_layer_norm(x + self.feed_forward(x))


class Encoder(nn.Module):
    do_stable_layer_norm = False

    def __init__(self, width: int, heads: int, layers: int):
        super().__init__()
        self.pos_conv_embed, self.layer_norm = Positions(width), nn.LayerNorm(width)
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))


class Wav2Vec2(nn.Module):
    """Samples [B, n] at 16 kHz and how many video frames they last, to what each layer makes: [layers, B, F, width]."""

    def __init__(self, width: int, heads: int, layers: int, conv_width: int):
        super().__init__()
        self.masked_spec_embed = nn.Parameter(torch.zeros(width))  # the layout has it; only other training uses it
        self.feature_extractor = FeatureExtractor(conv_width)
        self.feature_projection = FeatureProjection(conv_width, width)
        self.encoder = Encoder(width, heads, layers)

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], heads: int) -> "Wav2Vec2":
        """The encoder that a file holds; all sizes but the number of heads are told from the shapes."""
        width, conv_width = weights["feature_projection.projection.weight"].shape
        layers = sum(key.endswith(".attention.q_proj.weight") for key in weights)
        model = cls(width, heads, layers, conv_width)
        model.load_state_dict({key: weight.float() for key, weight in weights.items()})
        return model.requires_grad_(False).eval()

    def forward(self, samples: Tensor, frames: int) -> Tensor:
        features = F.interpolate(self.feature_extractor(samples), size=frames, mode="linear", align_corners=True)
        x = self.feature_projection(features.transpose(1, 2))
        x = self.encoder.layer_norm(x + self.encoder.pos_conv_embed(x))
        made = []
        for layer in self.encoder.layers:
            x = layer(x)
            made.append(x)
        return torch.stack(made)
