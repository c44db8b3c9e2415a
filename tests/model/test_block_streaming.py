"""Weights that wait in RAM reach every block in time, in two buffers, whatever the copies do."""

import pytest
import torch
from torch import nn

from pack.formats.encoding import Encoding
from pack.formats.linear import PackedLinear
from pack.formats.registry import format_of
from pack.skyreels_v3.model.block_streaming import ALIGNMENT, BLOCKS_AHEAD, OneQueue, Weight, streamed
from pack.skyreels_v3.model.chunking import USUAL, Chunking
from pack.skyreels_v3.model.params import TransformerParams
from pack.skyreels_v3.model.sequence import extension_segments
from pack.skyreels_v3.model.transformer import Runtime, SkyReelsTransformer
from pack.tests.support.slow_copies import HastyComputation, HastyCopies, Trap

PARAMS = TransformerParams(dim=64, ffn_dim=128, num_heads=2, num_layers=5, text_dim=32)
FORMATS = {"plain": None, "int8": "int8", "fp8": "float8_e4m3fn", "nf4": "nf4"}


def weights_of(module: nn.Module) -> list[Weight]:
    return [Weight(one, name) for one in module.modules() for name, _ in one.named_parameters(recurse=False)]


@pytest.fixture(scope="module")
def layers():
    """Five layers of different sizes."""
    torch.manual_seed(0)
    return nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 24), nn.Linear(24, 8), nn.Linear(8, 40), nn.Linear(40, 8)])


@torch.no_grad()
def run(layers, queues, waiting=range(5), compute=lambda index, layer, x: layer(x)):
    x = torch.ones(2, 8)
    before = dict(layers.named_parameters())
    blocks = [weights_of(layer) if index in waiting else [] for index, layer in enumerate(layers)]
    try:
        with streamed(blocks, queues) as stream:
            around = stream.wrap(compute)
            for index, layer in enumerate(layers):
                x = around(index, layer, x)
    finally:
        after = dict(layers.named_parameters())
        assert all(after[name] is parameter for name, parameter in before.items()), "the same tensors as before"
        assert not stream.buffers
    return x


@torch.no_grad()
def resident(layers):
    x = torch.ones(2, 8)
    for layer in layers:
        x = layer(x)
    return x


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("waiting", [range(5), (0,), (4,), (1, 3), (0, 2, 3, 4), ()])
def test_equal_numbers_whatever_the_copies_do(layers, late, pinned, waiting):
    with Trap(late, pinned=lambda source: pinned) as queues:
        assert torch.equal(run(layers, queues, waiting), resident(layers))
    assert not queues.faults and not queues.pending and not queues.waits
    assert [id(source) for source in queues.copies] == [
        id(weight.tensor) for index in waiting for weight in weights_of(layers[index])
    ], "every weight once, in the order of the blocks"
    largest = max((sum(w.size for w in weights_of(layers[index])) for index in waiting), default=0)
    assert queues.taken == min(BLOCKS_AHEAD, len(waiting)) * largest
    assert torch.equal(run(layers, OneQueue(torch.device("cpu")), waiting), resident(layers))


@pytest.mark.parametrize("hasty", [HastyComputation, HastyCopies])
def test_the_trap_catches_every_missing_wait(layers, hasty):
    with hasty() as queues:
        assert not torch.equal(run(layers, queues), resident(layers))


@pytest.mark.parametrize(
    "pinned, order", [(True, "c0 c1 b0 c2 b1 c3 b2 c4 b3 b4"), (False, "c0 b0 c1 b1 c2 b2 c3 b3 c4 b4")]
)
def test_a_block_is_on_its_way_before_the_one_ahead_computes(layers, pinned, order):
    """Behind it where the copy holds up the host, so that the device computes meanwhile."""

    def compute(index, layer, x):
        queues.log.append(("block", index))
        return layer(x)

    with Trap(pinned=lambda source: pinned) as queues:
        run(layers, queues, compute=compute)
    names = {id(layer.weight): f"c{index}" for index, layer in enumerate(layers)}
    seen = [f"b{what}" if kind == "block" else names.get(id(what)) for kind, what in queues.log]
    assert " ".join(filter(None, seen)) == order


def test_what_is_pinned_only_in_part(layers):
    """What can go ahead does; what cannot follows."""
    with Trap(pinned=lambda source: source.dim() == 1) as queues:
        assert torch.equal(run(layers, queues), resident(layers))
    assert not queues.faults


class Stop(BaseException):
    pass


@pytest.mark.parametrize("late", [True, False])
@pytest.mark.parametrize("at", range(5))
def test_an_interrupt_in_any_block(layers, late, at):
    def compute(index, layer, x):
        if index == at:
            raise Stop
        return layer(x)

    with Trap(late) as queues:
        with pytest.raises(Stop):
            run(layers, queues, compute=compute)
        assert not queues.pending and queues.waits == 1, "nothing is copied any more"
        assert torch.equal(run(layers, queues), resident(layers))


def test_no_memory_for_the_buffers(layers):
    class Full(Trap):
        def buffer(self, size):
            if self.taken:
                raise torch.cuda.OutOfMemoryError
            return super().buffer(size)

    blocks = [weights_of(layer) for layer in layers]
    with Full() as queues, pytest.raises(torch.cuda.OutOfMemoryError), streamed(blocks, queues):
        pass
    assert not queues.copies


@pytest.mark.parametrize("times", [0, 2])
def test_a_hook_that_runs_a_block_never_or_twice(layers, times):
    square = nn.ModuleList([layers[0]] * 1 + [nn.Linear(8, 8) for _ in range(3)])

    def compute(index, layer, x):
        for _ in range(times if index == 1 else 1):
            x = layer(x)
        return x

    with Trap() as queues, torch.no_grad():
        x = torch.ones(2, 8)
        blocks = [weights_of(layer) for layer in square]
        with streamed(blocks, queues) as stream:
            for index, layer in enumerate(square):
                x = stream.wrap(compute)(index, layer, x)
        wanted = torch.ones(2, 8)
        for index, layer in enumerate(square):
            wanted = compute(index, layer, wanted)
    assert torch.equal(x, wanted) and not queues.faults


@pytest.fixture(scope="module", params=FORMATS)
def network(request):
    torch.manual_seed(0)
    network = SkyReelsTransformer(PARAMS)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05)
    if FORMATS[request.param] is not None:
        format = format_of(Encoding(FORMATS[request.param]))
        for block in network.blocks:
            for index in (0, 2):
                layer = block.ffn[index]
                parts = format.pack(layer.weight.detach())
                block.ffn[index] = PackedLinear(layer.in_features, layer.out_features, format, parts, layer.bias.data)
    return network.requires_grad_(False)


@pytest.mark.parametrize("chunking", [USUAL, Chunking(long=1, tokens=8, head_groups=2)])
def test_the_network_streamed_is_the_network(network, chunking):
    """Bit by bit, and every weight of a block crosses once a forward, however many parts a sequence has."""
    torch.manual_seed(1)
    video, prefix = torch.randn(1, 16, 2, 8, 8), torch.randn(1, 16, 1, 8, 8)
    given = extension_segments(video, prefix), torch.tensor([500.0]), torch.randn(1, 512, 32)
    wanted = network(*given, runtime=Runtime(chunking=chunking))
    blocks = [weights_of(block) for block in network.blocks]
    with Trap() as queues, streamed(blocks, queues) as stream:
        out = network(*given, runtime=Runtime(chunking=chunking, run_block=stream.wrap(Runtime().run_block)))
    assert torch.equal(out, wanted) and not queues.faults
    assert len(queues.copies) == len({id(source) for source in queues.copies}) == sum(map(len, blocks))
    largest = max(sum(w.tensor.nbytes + ALIGNMENT for w in block) for block in blocks)
    assert queues.taken <= BLOCKS_AHEAD * largest
