"""The Wan 2.1 VAE in time: a few frames at a time through ComfyUI's modules, with a cache of the two frames before.

Layers are found by the names that their weights have in every checkpoint, so this runs on any class that holds them.
ComfyUI's own loop gives the same numbers; here nothing is computed twice or kept longer than needed. The past of a
layer, its padding and its new frames are written once, side by side, in the layout that convolutions are fastest in;
norm and activation work in place; and where memory is short the last stages take fewer frames at a time.

Several processes may hold some rows of the picture each: what a convolution reads then brings a row of each neighbour's
instead of the padding, and every query meets the keys of all rows.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F

from ..errors import InputError
from ..recipes import FRAMES_PER_LATENT
from .rows import Rows

PAST = 2  # frames before its own that a convolution in time looks at
# Up to so many channels x frames x rows torch convolves in 3 dimensions on a processor without oneDNN, slowly.
SMALL = 20480
# Of ComfyUI's class: what it holds is found by name.
Layer = Any
Convolve = Callable[[Layer, torch.Tensor, tuple[int, ...]], torch.Tensor]


def convolve(layer: Layer, x: torch.Tensor, padding: tuple[int, ...], by_cudnn: bool = False) -> torch.Tensor:
    """`layer`, a convolution in 2 or 3 dimensions, on x, with `padding` instead of its own.

    Its weights are cast to x's dtype. Where x has fewer frames than the kernel, the kernel's last frames are used.
    by_cudnn: see `convolved`.
    """
    bias = None if layer.bias is None else layer.bias.to(x)
    return convolved(x, layer.weight.to(x), bias, layer.stride, padding, by_cudnn)


def convolved(x, weight, bias, stride, padding, by_cudnn: bool = False) -> torch.Tensor:
    """The convolution in as many dimensions as x [1, C, ...] has; see `convolve`.

    by_cudnn: without torch's way around it, which takes many times the memory in some versions.
    """
    if by_cudnn and x.ndim == 5 and x.dtype in (torch.float16, torch.bfloat16):
        weight = weight[:, :, -x.shape[2] :]
        once = (1, 1, 1)
        y = torch.cudnn_convolution(x, weight, padding, stride, once, 1, False, False, True)
        return y if bias is None else y.add_(bias.view(-1, 1, 1, 1))
    if x.ndim == 4:
        return F.conv2d(x, weight, bias, stride, padding)
    weight = weight[:, :, -x.shape[2] :]
    if unfolds(x.device):
        return _frame_by_frame(x, weight, bias, stride, padding)
    if x.device.type == "cpu" and x.dtype == torch.float32 and x.shape[1] * x.shape[2] * x.shape[3] <= SMALL:
        return _tap_by_tap(x, weight, bias, stride, padding)
    return F.conv3d(x, weight, bias, stride, padding)


def unfolds(device: torch.device) -> bool:
    """Whether torch copies a convolution's input there, once for each number of the kernel: without MIOpen, which
    ComfyUI switches off on AMD's newer cards.
    """
    return device.type == "cuda" and torch.version.hip is not None and not torch.backends.cudnn.enabled


def _tap_by_tap(x, weight, bias, stride, padding) -> torch.Tensor:
    """The same as one convolution in 2 dimensions of all frames for each of the kernel's: a fifth of the time and less
    where torch has no fast one in 3.
    """
    frames, taps = _frames(x), weight.unbind(2)
    stop = len(frames) - len(taps) + 1
    y = F.conv2d(frames[: stop : stride[0]], taps[0], bias, stride[1:], padding[1:])
    for later, tap in enumerate(taps[1:], start=1):
        y += F.conv2d(frames[later : stop + later : stride[0]], tap, None, stride[1:], padding[1:])
    made = _video(y)
    return made if made.is_contiguous(memory_format=torch.channels_last_3d) else made.contiguous()


def _frame_by_frame(x, weight, bias, stride, padding) -> torch.Tensor:
    """The same for one frame after the other: a third of the copies where torch unfolds."""
    depth, made = weight.shape[2], x.new_empty(0)
    frames = range(0, x.shape[2] - depth + 1, stride[0])
    for index, frame in enumerate(frames):
        y = _tap_by_tap(x[:, :, frame : frame + depth], weight, bias, stride, padding)
        if not index:
            last = y.is_contiguous(memory_format=torch.channels_last_3d)
            layout = torch.channels_last_3d if last else torch.contiguous_format
            shape = *y.shape[:2], len(frames), *y.shape[3:]
            made = torch.empty(shape, dtype=y.dtype, device=y.device, memory_format=layout)
        made[:, :, index] = y[:, :, 0]
    return made


class _Layers:
    """The layers of encoder and decoder with the cache of their past; one for each video. rows: that it has of it."""

    def __init__(self, network: Layer, convolve: Convolve, layout: torch.memory_format, rows: Rows):
        self.network = network
        self.convolve = convolve
        self.layout = layout
        self.rows = rows
        self.past: dict[Layer, torch.Tensor] = {}

    def run(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        """A layer of the network on frames [1, C, f, H, W]; no frames where it waits for more of them."""
        if hasattr(layer, "residual"):
            return self.residual(layer, x)
        if hasattr(layer, "to_qkv"):
            return self.attention(layer, x)
        if hasattr(layer, "resample"):
            return self.resample(layer, x)
        raise InputError(f"The VAE has a layer {type(layer).__name__}, which Wan 2.1's has not: load wan_2.1_vae.")

    def resample(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        """A layer that changes size and, some of them, the count of frames."""
        raise NotImplementedError

    def residual(self, block: Layer, x: torch.Tensor) -> torch.Tensor:
        norm, conv = block.residual[0], block.residual[2]
        y = self.causal(conv, self.extended(conv, x, norm))
        norm, conv = block.residual[3], block.residual[6]
        wide = self.extended(conv, y, norm)
        del y
        y = self.causal(conv, wide)
        del wide
        return y.add_(x if isinstance(block.shortcut, torch.nn.Identity) else self.causal(block.shortcut, x))

    def attention(self, block: Layer, x: torch.Tensor) -> torch.Tensor:
        """Within each frame. x is written into."""
        for index in range(x.shape[2]):
            frame = x[:, :, index]
            y = _normed(block.norm, frame, torch.empty_like(frame))
            q, k, v = self.convolve(block.to_qkv, y, (0, 0)).chunk(3, dim=1)
            y = block.optimized_attention(q, self.rows.whole(k), self.rows.whole(v))
            frame += self.convolve(block.proj, y, (0, 0))
        return x

    def extended(self, layer: Layer, x: torch.Tensor, norm: Layer | None = None) -> torch.Tensor:
        """x, normed and activated where a norm is given, behind the frames that the layer was given before.

        Before the first frames lie zeros; a single first frame goes without them, see `convolve`. Where the layer looks
        at neighbouring rows that other processes have, they lie around x.
        """
        past, frames = self.past.get(layer), x.shape[2]
        before = 0 if past is None and frames == 1 else PAST
        edge = self.rows.edge if layer.kernel_size[1] > 1 else 0
        wide = self.empty(x, frames + before, edge)
        if before:
            wide[:, :, :PAST] = 0 if past is None else past
        new = self.rows.own(wide[:, :, before:], edge)
        if norm is None:
            new.copy_(x)
        else:
            F.silu(_normed(norm, x, new), inplace=True)
        if edge:
            self.rows.fill(wide[:, :, before:])
        if past is None:
            past = self.past[layer] = self.empty(x, PAST, edge)
            past[:, :, : PAST - frames] = 0
        shown = min(PAST, wide.shape[2])
        past[:, :, PAST - shown :] = wide[:, :, -shown:]
        return wide

    def causal(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        """A convolution in space and time; in time, and where others have rows, x brings what it needs."""
        _, high, wide = layer.kernel_size
        return self.convolve(layer, x, (0, 0 if self.rows.edge else high // 2, wide // 2))

    def empty(self, x: torch.Tensor, frames: int, edge: int = 0) -> torch.Tensor:
        """Like x, [1, C, frames, H + 2 edge, W]. Channels last, frames lie one after another, and some are a view."""
        shape = (*x.shape[:2], frames, x.shape[3] + 2 * edge, x.shape[4])
        return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=self.layout)

    def head(self, layers: Layer, x: torch.Tensor) -> torch.Tensor:
        norm, conv = layers[0], layers[2]
        return self.causal(conv, self.extended(conv, x, norm))


class Decoder(_Layers):
    """Decodes one video, a latent frame after the other."""

    def pieces(self, latents: torch.Tensor, at_once: int) -> Iterator[torch.Tensor]:
        """Frames [1, 3, up to at_once, H, W] of one more latent frame [1, 16, 1, h, w]."""
        decoder = self.network.decoder
        x = self.causal(self.network.conv2, latents.contiguous(memory_format=self.layout))
        x = self.causal(decoder.conv1, self.extended(decoder.conv1, x))
        for layer in decoder.middle:
            x = self.run(layer, x)
        yield from self.upward(list(decoder.upsamples), x, at_once)

    def upward(self, layers: list[Layer], x: torch.Tensor, at_once: int) -> Iterator[torch.Tensor]:
        """The upsampling layers, whose frames become many and large: chunks of `at_once` frames take turns."""
        for done, layer in enumerate(layers, start=1):
            x = self.run(layer, x)
            if x.shape[2] > at_once:
                for chunk in x.split(at_once, dim=2):
                    yield from self.upward(layers[done:], chunk, at_once)
                return
        yield self.head(self.network.decoder.head, x)

    def resample(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        conv = getattr(layer, "time_conv", None)
        if conv is not None:
            if layer in self.past:
                pairs = self.causal(conv, self.extended(conv, x))
                x = self.empty(x, 2 * x.shape[2])
                x[:, :, 0::2], x[:, :, 1::2] = pairs.chunk(2, dim=1)
                del pairs
            else:
                # The video's first frame is one; it does not count as the past of the others either.
                self.past[layer] = x[:, :, :0]
        edge = self.rows.edge
        wide = F.interpolate(self.rows.around(_frames(x)), scale_factor=2, mode="nearest-exact")
        # A row becomes two: the convolution also makes the nearest of each neighbour's, whose own edge it lacks.
        return _video(self.rows.own(self.convolve(layer.resample[1], wide, (1 - edge, 1)), edge))


class _Encoder(_Layers):
    def latents(self, pixels: torch.Tensor) -> torch.Tensor | None:
        """What more frames [1, 3, f, H, W] make, [1, 16, n, h, w]; None where it takes yet more of them."""
        encoder = self.network.encoder
        x = self.causal(encoder.conv1, self.extended(encoder.conv1, pixels.contiguous(memory_format=self.layout)))
        for layer in encoder.downsamples:
            x = self.run(layer, x)
            if not x.shape[2]:
                return None
        for layer in encoder.middle:
            x = self.run(layer, x)
        x = self.causal(self.network.conv1, self.head(encoder.head, x))
        return x.chunk(2, dim=1)[0]  # the mean; the other half is the spread

    def resample(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        x = _video(self.convolve(layer.resample[1], F.pad(_frames(x), (0, 1, 0, 1)), (0, 0)))
        conv = getattr(layer, "time_conv", None)
        if conv is None:
            return x
        past = self.past.get(layer)
        if past is None:
            self.past[layer] = x.clone()
            return x
        x = torch.cat([past, x], dim=2)
        pairs = (x.shape[2] - 1) // 2
        self.past[layer] = x[:, :, 2 * pairs :].clone()
        return self.convolve(conv, x[:, :, : 2 * pairs + 1], (0, 0, 0)) if pairs else x[:, :, :0]


def decode(
    network: Layer,
    latents: torch.Tensor,
    convolve: Convolve = convolve,
    at_once: int = FRAMES_PER_LATENT,
    layout: torch.memory_format = torch.channels_last_3d,
) -> Iterator[torch.Tensor]:
    """Pixels of latents [1, 16, T, h, w] (not in model space), piece after piece: [1, 3, f, 8 h, 8 w] in about [-1, 1].

    The first piece is one frame; a latent frame after it makes four, in pieces of at most `at_once`: 4, 2 or 1. All
    have the latents' dtype and device. convolve: how a layer of the network is run, see `convolve` here.
    layout: of all tensors between.
    """
    decoder = Decoder(network, convolve, layout, Rows())
    for latent in latents.split(1, dim=2):
        yield from decoder.pieces(latent, at_once)


def encode(
    network: Layer,
    pixels: Callable[[int, int], torch.Tensor],
    frames: int,
    convolve: Convolve = convolve,
    at_once: int = FRAMES_PER_LATENT,
    layout: torch.memory_format = torch.channels_last_3d,
) -> Iterator[torch.Tensor]:
    """Latents of a video, the mean of what the network sees: [1, 16, n, h, w] at a time, not in model space.

    pixels: (start, stop) -> those frames [1, 3, stop - start, H, W] in [-1, 1], as they are to be computed.
    frames: 4n + 1; what is beyond is left out, as in the official code.  at_once and the others: as in `decode`.
    """
    encoder = _Encoder(network, convolve, layout, Rows())
    for start in range(1 - at_once, frames - (frames - 1) % FRAMES_PER_LATENT, at_once):
        made = encoder.latents(pixels(max(start, 0), start + at_once))
        if made is not None:
            yield made


def _normed(norm: Layer, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """x over its root mean square of all channels, times gamma, written to `out`, which may be x."""
    size = torch.linalg.vector_norm(x, dim=1, keepdim=True, dtype=torch.float32)
    torch.mul(x, size.clamp_(min=1e-12).reciprocal_().mul_(norm.scale), out=out)
    out.mul_(norm.gamma.to(out))
    return out if norm.bias is None else out.add_(norm.bias.to(out))


def _frames(x: torch.Tensor) -> torch.Tensor:
    """[1, C, f, H, W] -> [f, C, H, W], a view."""
    return x[0].transpose(0, 1)


def _video(x: torch.Tensor) -> torch.Tensor:
    """[f, C, H, W] -> [1, C, f, H, W], a view."""
    return x.transpose(0, 1)[None]
