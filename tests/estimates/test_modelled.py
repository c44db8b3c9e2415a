"""The time that is told before anything was measured: by what a card can do, as dev/fake_card counts it."""

import json
from pathlib import Path

import pytest

from pack.dev.fake_card.profiles import CARDS
from pack.skyreels_v3.jobs.estimates import modelled
from pack.skyreels_v3.jobs.estimates.modelled import Way, seconds
from pack.skyreels_v3.jobs.estimates.rates import rates
from pack.skyreels_v3.model.params import AudioParams, TransformerParams

ROOT = Path(__file__).resolve().parents[2]
COUNTED = json.loads((ROOT / "benchmarks" / "results" / "roofline.json").read_text(encoding="utf-8"))["results"][
    "cards"
]
VIDEO = TransformerParams()
AVATAR = TransformerParams(in_dim=36, image_dim=1280, audio=AudioParams())
KINDS = {
    "16 bits": Way(),
    "int8": Way("int8"),
    "fp8": Way("fp8"),
    "nf4": Way(unpacks=True),
    "int8, attention in 8 bits": Way("int8", exact=False),
}


@pytest.mark.parametrize(
    ("card", "half", "int8", "memory"),
    [
        (("NVIDIA GeForce RTX 4090", (8, 9), 128), 165e12, 660e12, 1008e9),
        (("NVIDIA GeForce RTX 3090", (8, 6), 82), 71e12, 284e12, 936e9),
        (("NVIDIA GeForce RTX 2080 Ti", (7, 5), 68), 54e12, 215e12, 616e9),
        (("NVIDIA GeForce RTX 5090", (12, 0), 170), 210e12, 838e12, 1792e9),
        (("NVIDIA L40S", (8, 9), 142), 362e12, 733e12, 864e9),
        (("NVIDIA A100-SXM4-80GB", (8, 0), 108), 312e12, 624e12, 2039e9),
        (("NVIDIA H200", (9, 0), 132), 790e12, 1580e12, 4800e9),
    ],
)
def test_rates_are_those_of_the_data_sheets(card, half, int8, memory):
    found = rates(*card)
    assert (found.half, found.int8) == pytest.approx((half, int8), rel=0.03)
    assert found.bandwidth == pytest.approx(memory, rel=0.5)  # where torch does not tell it
    assert rates(*card, memory).bandwidth == memory


def test_other_cards():
    whole, laptop = (rates(f"NVIDIA GeForce RTX 4090{name}", (8, 9), 76) for name in ("", " Laptop GPU"))
    assert laptop.half < whole.half
    assert rates("NVIDIA GeForce GTX 1080 Ti", (6, 1), 28) is None
    turing = rates("NVIDIA GeForce RTX 2080 Ti", (7, 5), 68)
    with pytest.raises(ValueError, match="fp8"):
        seconds(VIDEO, 39_000, Way("fp8"), turing)


# A card of each size, with SMs and GB/s of its memory -> the row of README.md.
SOLD = {
    "8 GB, RTX 4060": ("NVIDIA GeForce RTX 4060", (8, 9), 24, 272e9),
    "12 GB, RTX 3060": ("NVIDIA GeForce RTX 3060", (8, 6), 28, 360e9),
    "16 GB, RTX 5060 Ti": ("NVIDIA GeForce RTX 5060 Ti", (12, 0), 36, 448e9),
    "24 GB, RTX 3090": ("NVIDIA GeForce RTX 3090", (8, 6), 82, 936e9),
    "24 GB, RTX 4090": ("NVIDIA GeForce RTX 4090", (8, 9), 128, 1008e9),
}
# Tokens of 848 x 480 and 1280 x 720 with 121 frames, and of a window; steps.
JOBS = [(VIDEO, 55_650, 8), (VIDEO, 126_000, 8), (AVATAR, 33_390, 4), (AVATAR, 75_600, 4)]


def minutes(*card, **way) -> list[str]:
    speed, factor = rates(*card), modelled.corrections().get(card[0], 1.0) / 60
    found = [factor * steps * seconds(sizes, tokens, Way("int8", **way), speed) for sizes, tokens, steps in JOBS]
    return [f"{one:.0f}" if one >= 10 else f"{one:.1f}" for one in found]


def test_the_readme_tells_what_is_modelled():
    rows = []
    for name, card in SOLD.items():
        both = zip(minutes(*card), minutes(*card, exact=False))
        rows.append(" | ".join([f"| {name}", *(f"{exact} / {rounded}" for exact, rounded in both)]) + " |")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "\n".join(rows) in text, "\n".join(rows)
    for card in SOLD.values():  # "5 to 25 % more"
        speed = rates(*card)
        for sizes, tokens, _ in JOBS:
            more = seconds(sizes, tokens, Way("int8", fused=False), speed) / seconds(sizes, tokens, Way("int8"), speed)
            assert 1.03 < more < 1.3


@pytest.mark.parametrize("card", COUNTED)
def test_four_terms_come_to_what_is_counted_operation_by_operation(card):
    profile = CARDS[card]
    for name, counted in COUNTED[card].items():
        kind = name.partition(" ")[2]
        way = KINDS[kind]
        way = Way(way.products, way.unpacks, profile.has_triton and profile.capability != (7, 5), way.exact)
        wanted = sum(counted["seconds"].values())
        assert seconds(VIDEO, counted["tokens"], way, profile.rates) == pytest.approx(wanted, rel=0.1), name


def test_a_card_that_was_measured_corrects_it():
    assert modelled.corrections() == json.loads(modelled.MEASURED.read_text(encoding="utf-8"))
    assert all(0.2 < factor < 5 for factor in modelled.corrections().values())
