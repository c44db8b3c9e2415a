"""Features of wav2vec2 for the avatar, 25 a second, computed in chunks.

Source: wav2vec2.py of the official code. The convolution's features are resampled to the video's rate before the
transformer, as the model was trained; ComfyUI's own nodes resample after it.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ... import kernels
from ..errors import InputError
from ..model.params import AudioParams
from .recording import video_frames

CHUNK = 500  # frames that are made at once, 10 s of the convolutions: 200 s whole would take 4 GB
ENCODER = "wav2vec2-chinese-base (AudioEncoderLoader)"

Layer = Callable[[torch.Tensor], torch.Tensor]


class Convolution(NamedTuple):
    """One layer of the feature extractor: [1, c, n] -> [1, c', (n - kernel) // stride + 1]."""

    run: Layer
    kernel: int
    stride: int
    # Only where the layer normalises each channel over all of time: it is convolve, then norm, then GELU.
    convolve: Layer | None = None
    norm: Layer | None = None
    eps: float = 1e-5


@dataclass(frozen=True)
class SpeechEncoder:
    """The three stages of wav2vec2, on one device, in float32 or casting to it."""

    convolutions: Sequence[Convolution]  # of the feature extractor; only the first may normalise over time
    project: Callable[[torch.Tensor], torch.Tensor]  # [1, m, conv width] -> [1, m, width]
    transform: Callable[[torch.Tensor], Iterable[torch.Tensor]]  # [1, m, width] -> the output of each layer, alike
    layers: int  # of the transformer
    width: int

    @classmethod
    def of(cls, model) -> "SpeechEncoder":
        """From a Wav2Vec2Model of ComfyUI (comfy.audio_encoders.wav2vec2), in the layout of wav2vec2-base.

        Raises InputError for another encoder, and for one in the layout of wav2vec2-large, which no avatar was trained
        on. Whether the sizes are right is known where the avatar is: `check_features`.
        """
        if not hasattr(model, "feature_projection"):
            raise InputError(f"The audio encoder is {type(model).__name__}, but the avatar needs {ENCODER}.")
        layers, width = len(model.encoder.layers), model.masked_spec_embed.shape[0]
        if model.encoder.do_stable_layer_norm:
            raise InputError(_unlike(f"The audio encoder makes {layers} layers of {width} features", AudioParams()))
        convolutions = [_convolution(layer) for layer in model.feature_extractor.conv_layers]
        return cls(convolutions, model.feature_projection, partial(_layer_outputs, model.encoder), layers, width)


def check_features(layers: int, width: int, params: AudioParams) -> None:
    """Raises InputError for features, so many layers of such a width, that the avatar was not trained on."""
    if (layers, width) != (params.layers, params.width):
        raise InputError(_unlike(f"The speech has {layers} layers of {width} features", params))


def _unlike(given: str, params: AudioParams) -> str:
    needed = f"{params.layers} of {params.width}"
    return f"{given}, but the avatar was trained on {needed}: load {ENCODER}."


def speech_features(samples: torch.Tensor, encoder: SpeechEncoder) -> Iterator[torch.Tensor]:
    """Features of prepared speech, one layer after the other, each [video frames, width] float32 on the CPU.

    samples: [n] at 16 kHz, on the encoder's device.  Raises InputError for NaN or infinite features.
    """
    frames = video_frames(len(samples))
    features = convolved(samples[None], encoder.convolutions)
    features = F.interpolate(features, size=frames, mode="linear", align_corners=True).transpose(1, 2)
    for state in encoder.transform(encoder.project(features)):
        layer = state[0].to("cpu", torch.float32)
        if not torch.isfinite(layer).all():
            raise InputError(
                "The audio encoder made features that are no numbers (NaN or infinity): "
                f"load {ENCODER} again, in float32."
            )
        yield layer


def convolved(samples: torch.Tensor, convolutions: Sequence[Convolution], chunk: int = CHUNK) -> torch.Tensor:
    """Features [1, conv width, m] of samples [1, n], about 50 a second, `chunk` of them at a time."""
    first, *rest = convolutions
    run = first.run
    if first.convolve is not None and first.norm is not None:
        run = _normalised(first, first.convolve, first.norm, samples, chunk)
    made = []
    for x in _chunks(samples[:, None], convolutions, chunk):
        x = run(x)
        for convolution in rest:
            x = convolution.run(x)
        made.append(x)
    return torch.cat(made, dim=2)


def _layer_outputs(encoder, x: torch.Tensor) -> Iterator[torch.Tensor]:
    """What comes out of each layer of ComfyUI's TransformerEncoder, in wav2vec2-base's order (norms after sums).

    The layers' own forward would use ComfyUI's attention: 1.8 GB for 200 s on a CPU, 8 bits where SageAttention is on.
    """
    x = encoder.layer_norm(x + encoder.pos_conv_embed(x))
    for layer in encoder.layers:
        x = layer.layer_norm(x + _attention(layer.attention, x))
        # In chunks, as no frame depends on another: 200 s whole would take 120 MB.
        x = layer.final_layer_norm(x + torch.cat([layer.feed_forward(chunk) for chunk in x.split(CHUNK, dim=1)], dim=1))
        yield x


def _attention(attention, x: torch.Tensor) -> torch.Tensor:
    projections = attention.q_proj, attention.k_proj, attention.v_proj
    q, k, v = (project(x).unflatten(-1, (attention.num_heads, -1)) for project in projections)
    return attention.out_proj(kernels.attention(q, k, v))


def _convolution(layer) -> Convolution:
    conv, norm = layer.conv, getattr(layer, "layer_norm", None)
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    if isinstance(norm, torch.nn.GroupNorm):
        return Convolution(layer, kernel, stride, conv, norm, norm.eps)
    return Convolution(layer, kernel, stride)


def _chunks(x: torch.Tensor, convolutions: Sequence[Convolution], chunk: int) -> Iterator[torch.Tensor]:
    """Overlapping chunks of x [1, c, n] whose convolved features, put together, are those of the whole."""
    field, stride, frames = 1, 1, x.shape[2]
    for convolution in convolutions:
        field += (convolution.kernel - 1) * stride
        stride *= convolution.stride
        frames = (frames - convolution.kernel) // convolution.stride + 1
    for start in range(0, frames, chunk):
        stop = min(start + chunk, frames)
        yield x[:, :, start * stride : (stop - 1) * stride + field]


def _normalised(layer: Convolution, convolve: Layer, norm: Layer, samples: torch.Tensor, chunk: int) -> Layer:
    """A layer that normalises with each channel's mean and variance over all of time, as a function of a chunk."""
    count, mean, square = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    # As many of this layer's frames as it later makes at once: six halvings of time come after it.
    for x in _chunks(samples[:, None], [layer], chunk * 64):
        made = convolve(x).float()
        variance, average = torch.var_mean(made, dim=2, correction=0)
        variance, average = variance.cpu().double(), average.cpu().double()  # not every GPU has float64
        # Chan's update of mean and variance.
        new = made.shape[2]
        shift, total = average - mean, count + new
        mean = mean + shift * new / total
        square = square + (variance + shift**2 * count / total) * new
        count = total
    scale, mean = torch.rsqrt(square / count + layer.eps).float(), mean.float()
    # The norm's own weights, whatever they are stored in and wherever they lie: what it makes of -1 and 1.
    low, high = norm(samples.new_tensor([[[-1.0, 1.0]]]).expand(1, scale.shape[1], 2).contiguous()).unbind(2)
    weight = (high - low) / 2 * math.sqrt(1 + layer.eps)
    bias = (high + low) / 2
    factor = scale.to(weight) * weight
    offset = (bias - mean.to(weight) * factor)[..., None]

    def run(x: torch.Tensor) -> torch.Tensor:
        return F.gelu(torch.addcmul(offset, convolve(x), factor[..., None]))

    return run
