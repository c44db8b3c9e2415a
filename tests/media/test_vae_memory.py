"""What the VAE needs and how a video is tiled, from sizes alone; and the tiles themselves."""

import pytest
import torch

from pack.benchmarks.harness import measure
from pack.skyreels_v3.vae import causal as causal_vae
from pack.skyreels_v3.vae.memory import Direction, Tiling, choose, needed, smaller, tile_side, tilings, vae_bytes
from pack.skyreels_v3.vae.plain import is_decoders, plain_decoder
from pack.skyreels_v3.vae.rows import Rows
from pack.skyreels_v3.vae.tiles import edges, shares, tiles
from pack.tests.goldens.pieces import comfy
from pack.tests.model.test_ranks import OneOf

GB = 10**9
FULL = 96  # channels of Wan 2.1's VAE
HD, SD = (90, 160), (60, 104)  # latent pixels of 720p and 480p


def empty(layer, x, padding):
    """A convolution that only takes the memory of its result."""
    kernel = layer.kernel_size if x.ndim == 4 else (min(layer.kernel_size[0], x.shape[2]), *layer.kernel_size[1:])
    sizes = [
        (length + 2 * pad - wide) // stride + 1
        for length, pad, wide, stride in zip(x.shape[2:], padding, kernel, layer.stride)
    ]
    layout = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    return torch.empty((x.shape[0], layer.weight.shape[0], *sizes), memory_format=layout)


def unfolding(layer, x, padding):
    """A convolution that takes the memory of its result and of the copies of its input, a frame at a time."""
    made = empty(layer, x, padding)
    columns = layer.in_channels * layer.kernel_size[-2] * layer.kernel_size[-1] * made.shape[-2] * made.shape[-1]
    if layer.kernel_size[-1] > 1:  # others are a product as they are
        copies = torch.empty(columns)
        results = torch.empty(0 if x.ndim == 4 else 2 * layer.out_channels * made.shape[-2] * made.shape[-1])
        del copies, results
    return made


@pytest.mark.parametrize("convolve", [empty, unfolding])
@pytest.mark.parametrize("at_once", (4, 2, 1))
@pytest.mark.parametrize("direction", Direction)
def test_the_count_is_what_tensors_take(direction, at_once, convolve):
    network = comfy("ldm.wan.vae").WanVAE(dim=16, z_dim=16, temperal_downsample=[False, True, True])
    height, width, latents = 12, 12, 3
    with torch.inference_mode():
        for parameter in network.parameters():
            parameter.zero_()
        z, video = torch.zeros(1, 16, latents, height, width), torch.zeros(1, 3, 9, 8 * height, 8 * width)

        def run():
            if direction is Direction.DECODE:
                pieces = causal_vae.decode(network, z, convolve, at_once)
            else:
                pieces = causal_vae.encode(network, lambda start, stop: video[:, :, start:stop], 9, convolve, at_once)
            for _ in pieces:
                pass

        taken = measure.peak_allocated(run)
    counted = vae_bytes(direction, height, width, 16, 4, at_once, convolve is unfolding)
    assert taken == pytest.approx(counted, rel=0.05)


@pytest.mark.parametrize("at_once", (4, 1))
def test_the_count_of_a_card_with_some_rows(at_once):
    """Of 36 rows a third; one more is counted, for those of the neighbours and what is exchanged."""
    network = comfy("ldm.wan.vae").WanVAE(dim=16, z_dim=16, temperal_downsample=[False, True, True])
    network = plain_decoder({name: one for name, one in network.state_dict().items() if is_decoders(name)})
    rows, layout = Rows(OneOf(1, 3), 36), torch.channels_last_3d

    def run():
        decoder = causal_vae.Decoder(network, empty, layout, rows)
        for latent in torch.zeros(1, 16, 3, 12, 12).split(1, dim=2):
            for _ in decoder.pieces(latent, at_once):
                pass

    with torch.inference_mode():
        taken = measure.peak_allocated(run)
    counted = vae_bytes(Direction.DECODE, 13, 12, 16, 4, at_once)
    assert 0.9 * counted <= taken <= counted


@pytest.mark.parametrize("size, card", [(HD, 8 * GB), (SD, 4 * GB)])
@pytest.mark.parametrize("direction, itemsize", [(Direction.DECODE, 2), (Direction.ENCODE, 4)])
def test_small_cards_are_enough(size, card, direction, itemsize):
    room = card - GB  # the weights, and what ComfyUI and the system keep
    assert choose(room, lambda: tilings(direction, *size, FULL, itemsize)).bytes <= room


def test_what_is_there_decides():
    def of(budget):
        return choose(budget, lambda: tilings(Direction.DECODE, *HD, FULL, 2))

    assert of(24 * GB) == Tiling(*HD, 1, 1, 4, needed(vae_bytes(Direction.DECODE, *HD, FULL, 2)))
    assert of(8 * GB).whole
    assert of(int(6.5 * GB)).whole and of(int(6.5 * GB)).at_once == 1, "fewer frames at once before tiles"
    assert (of(5 * GB).rows, of(5 * GB).columns) == (1, 2), "the long side is cut first"
    assert of(5 * GB).describe() == " in 2 x 1 tiles of 672 x 720"
    assert of(24 * GB).describe() == ""
    least = of(0)
    assert least.bytes == min(tiling.bytes for tiling in tilings(Direction.DECODE, *HD, FULL, 2))
    assert smaller(least, lambda: tilings(Direction.DECODE, *HD, FULL, 2)) is None
    less = smaller(of(24 * GB), lambda: tilings(Direction.DECODE, *HD, FULL, 2))
    assert less.bytes <= of(24 * GB).bytes * 2 / 3


def test_a_small_picture_is_not_cut():
    assert all(tiling.whole for tiling in tilings(Direction.DECODE, 24, 24, FULL, 2))
    assert choose(0, lambda: tilings(Direction.DECODE, 2, 2, FULL, 2)).whole


@pytest.mark.parametrize("length, count", [(60, 1), (60, 2), (61, 2), (160, 3), (161, 5)])
@pytest.mark.parametrize("scale", [1, 8])
def test_tiles_cover_everything_once(length, count, scale):
    found = edges(length, count)
    assert found[0][0] == 0 and found[-1][1] == length
    assert {stop - start for start, stop in found} == {tile_side(length, count)}
    total = torch.zeros(length * scale)
    for (start, stop), share in zip(found, shares(found, scale)):
        total[start * scale : stop * scale] += share
    assert torch.allclose(total, torch.ones_like(total))


def test_what_all_tiles_have_alike_comes_back():
    tiling = Tiling(60, 104, 2, 3, 4, 0)
    video = torch.randn(1, 3, 2, 60 * 8, 104 * 8)
    back = torch.zeros_like(video)
    for tile in tiles(tiling, 8):
        tile.add(tile.cut(video, 8), back)
    assert torch.allclose(back, video, atol=1e-5)
