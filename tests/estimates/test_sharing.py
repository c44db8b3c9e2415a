"""What sharing a forward gives, by the model that Plan tells until it was measured."""

import re
from dataclasses import replace

import pytest

from pack.skyreels_v3.jobs.estimates.budget import Budget, LoadedModel, Machine, planned_size
from pack.skyreels_v3.jobs.estimates.sharing import Sharing
from pack.skyreels_v3.model.memory import Keeping
from pack.skyreels_v3.model.params import TransformerParams
from pack.skyreels_v3.recipes import Job

PARAMS = TransformerParams()  # the released reference model
TOKENS = 126_000  # 720p
GB = 10**9


def test_the_table_of_the_docs():
    """docs/several-devices.md: seconds on one card, and how much sooner several are ready."""
    links = {"H100": (32, 300), "A100": (80, 22), "4090": (124, 6), "5090": (95, 6), "10 Gbit/s": (124, 1.1)}
    wanted = {
        "H100": (1.98, 3.94, 7.85),
        "A100": (1.89, 3.68, 7.26),
        "4090": (1.76, 3.31, 6.43),
        "5090": (1.69, 3.14, 6.07),
        "10 Gbit/s": (1.14, 1.87, 3.44),
    }
    for name, (alone, rate) in links.items():
        gains = [alone / Sharing(n, rate * GB).seconds(alone, PARAMS, TOKENS, 2) for n in (2, 4, 8)]
        assert gains == pytest.approx(wanted[name], rel=0.015), name


def test_one_card_exchanges_nothing():
    assert Sharing(1, 0.0).seconds(3.0, PARAMS, TOKENS, 2) == 3.0


def test_heads_that_cannot_be_divided():
    assert [Sharing(n, 1.0).balance(40) for n in (1, 2, 8)] == [1, 1, 1]
    assert Sharing(3, 1.0).balance(40) == pytest.approx(14 * 3 / 40)


def machine(vram: float) -> Machine:
    return Machine("cuda", int(vram * GB), int(vram * GB), 64 * GB, 64 * GB, GB // 2)


def budget(cards: int, vram: float) -> Budget:
    network = LoadedModel(PARAMS, Job.REFERENCE, 2, int(14.5 * GB), "int8", {}, cards)
    return Budget(network, planned_size(Job.REFERENCE, 1280, 720), machine(vram))


def test_each_card_holds_all_weights_or_a_part():
    large, small = budget(2, 48), budget(2, 16)
    assert large.held == large.network.weights and "each card" in large.verdict()
    assert small.keeping is Keeping.SPLIT and small.held == 14_500_000_000 // 2 + 2 * 14_500_000_000 // 40
    assert small.fits and "keeps a part" in small.verdict() and small.streamed == 0
    assert "on each of 2 cards" in small.describe()[1]


def test_weights_that_no_card_has_room_for_stay_in_ram():
    """Where a forward does not fit beside a part of them, even in the smallest chunks."""
    least = next(gigabytes for gigabytes in range(4, 16) if budget(2, gigabytes).fits)
    tight = budget(2, least)
    assert tight.keeping is Keeping.IN_RAM and tight.held == 2 * 14_500_000_000 // 40
    assert re.search(r"stay in RAM, 14.5 GB in all.*0.7 GB at a time", tight.verdict())
    assert not budget(2, least - 1).fits
    full = replace(tight, machine=replace(tight.machine, ram_free=10 * GB))
    assert "has 10.0 GB free of the 14.5 GB that they need" in full.verdict()


def test_activations_are_not_halved_by_two():
    one, two, four = (budget(cards, 80).forward for cards in (1, 2, 4))
    assert 0.6 * one < two < 0.75 * one and two / 2 <= four < 0.6 * two
