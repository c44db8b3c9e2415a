"""A VAE's decoder over processes, each with some rows of the picture, gives what one process decodes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pack.distributed.ranks import Ranks
from pack.skyreels_v3.vae.causal import decode
from pack.skyreels_v3.vae.plain import is_decoders
from pack.tests.distributed.test_worker import worker_of
from pack.tests.goldens.pieces import comfy
from pack.tests.support.golden import read, relative_error
from pack.tests.support.processes import Processes

GOLDEN = Path(__file__).resolve().parents[1] / "goldens" / "vae.safetensors"
SIZES = [(3, 6, 5), (3, 7, 3), (2, 4, 6)]  # latent frames, rows, columns


@pytest.fixture(scope="module", params=[3, pytest.param(2, marks=pytest.mark.workshop)])
def processes(request) -> Iterator[Processes]:
    made = Processes(request.param)
    yield made
    made.close()


def latents(size: tuple[int, int, int]) -> torch.Tensor:
    return torch.randn(1, 16, *size, generator=torch.Generator().manual_seed(sum(size)))


def by_rows(ranks: Ranks, weights: dict, videos: list[tuple[torch.Tensor, int]]) -> list[list[torch.Tensor]]:
    """Of each video, with so many frames at once, the pieces that this process makes."""
    worker, made = worker_of(ranks), []
    for video, at_once in videos:
        begin = ("begin_pictures", "vae", video.shape[-2], False)
        if not made:
            assert worker.call(*begin) == ("done", False)
            for part in (weights[:40], weights[40:]):
                assert worker.call("take_vae", "vae", dict(part)) == ("done", None)
        assert worker.call(*begin) == ("done", True)
        answers = [worker.call("decode", latent, at_once) for latent in video.split(1, dim=2)]
        assert all(status == "done" for status, _ in answers), answers
        made.append([piece for _, pieces in answers for piece in pieces])
    return made


@pytest.fixture(scope="module")
def network(comfyui):
    golden = read(GOLDEN)
    made = comfy("ldm.wan.vae").WanVAE(**golden.config)
    made.load_state_dict(golden.weights())
    return made


def compared(processes: Processes, network, dtype: torch.dtype, videos: list[tuple[torch.Tensor, int]]):
    """Of each video what one process makes in float32, what it makes in `dtype`, and what the processes make."""
    weights = [(name, one) for name, one in network.state_dict().items() if is_decoders(name)]
    videos = [(video.to(dtype), at_once) for video, at_once in videos]
    for (video, at_once), *each in zip(videos, *processes.call(by_rows, weights, videos), strict=True):
        with torch.inference_mode():
            exact, alone = (torch.cat(list(decode(network, x, at_once=at_once)), 2) for x in (video.float(), video))
        rows = [torch.cat(pieces, dim=2) for pieces in each]
        heights = [one.shape[-2] for one in rows]
        assert heights == sorted(heights, reverse=True) and sum(heights) == alone.shape[-2]
        yield exact, alone, torch.cat(rows, dim=-2)


def test_rows_are_those_of_one_process(processes, network):
    videos = [(latents(size), at_once) for size, at_once in zip(SIZES, (4, 2, 1), strict=True)]
    for _, alone, rows in compared(processes, network, torch.float32, videos):
        assert relative_error(rows, alone) <= 1e-5


@pytest.mark.workshop
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_loses_no_more_than_in_one_process(processes, network, dtype):
    for exact, alone, rows in compared(processes, network, dtype, [(latents(SIZES[1]), 2)]):
        assert relative_error(rows, exact) <= 1.1 * relative_error(alone, exact)
