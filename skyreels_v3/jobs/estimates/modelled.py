"""How long a forward takes on a card that nobody has measured: a roofline, which dev/fake_card counts operation by
operation and this in four terms. `make bench ARGS="--only roofline"` compares the two.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ...model.memory import IMAGE_TOKENS, TEXT_TOKENS, block_numbers
from ...model.params import TransformerParams
from .rates import REACHED, Rates

# What is known of cards that `make card` has measured: name -> the seconds of a block beside those modelled.
MEASURED = Path(__file__).with_name("measured_cards.json")
# Bytes that move between the products of a block for a number of the stream, with our kernels and without.
FUSED = {"half": 66, "int8": 66, "fp8": 75}
PLAIN = {"half": 162, "int8": 440, "fp8": 290}
UNPACKED = 20  # bytes that move for a number of a weight that is unpacked
SPEECH = 60  # bytes more for a number of the stream where there is speech


@dataclass(frozen=True)
class Way:
    """How a forward runs. products: "half" (16 bits), "int8" or "fp8".  unpacks: whether weights are unpacked for
    them.  fused: whether our kernels run.  exact: whether attention does not round to 8 bits.
    """

    products: str = "half"
    unpacks: bool = False
    fused: bool = True
    exact: bool = True


def parts(params: TransformerParams, tokens: int, way: Way, rates: Rates, batch: int = 1) -> dict[str, float]:
    """Seconds of a forward by what takes them. tokens: of one video. Raises ValueError where a card has no such way."""
    products = {"half": rates.half, "int8": REACHED * rates.int8, "fp8": rates.fp8}[way.products]
    attention = rates.attention if way.exact else rates.attention8
    if not products or not attention:
        raise ValueError(f"{way} on a card with {rates}")
    dim, speech = params.dim, params.audio is not None
    matrices = 6 * dim**2 + 2 * dim * params.ffn_dim + (2 * dim**2 if speech else 0)
    beside = TEXT_TOKENS + (0 if params.image_dim is None else IMAGE_TOKENS)
    moved = (FUSED if way.fused else PLAIN)[way.products] + (SPEECH if speech else 0)
    each = {
        "products": 2 * tokens * matrices / products,
        "attention": 4 * dim * tokens * (tokens / attention + beside / rates.attention),
        "between": moved * tokens * dim / rates.bandwidth,
    }
    found = {name: params.num_layers * batch * seconds for name, seconds in each.items()}
    if way.unpacks:
        found["unpacking"] = params.num_layers * UNPACKED * block_numbers(params) / rates.bandwidth
    return found


def seconds(params: TransformerParams, tokens: int, way: Way, rates: Rates, batch: int = 1) -> float:
    """Of a forward, as `parts`."""
    return sum(parts(params, tokens, way, rates, batch).values())


@functools.cache
def corrections() -> Mapping[str, float]:
    """Card's name -> the factor by which its forwards were slower than modelled."""
    return json.loads(MEASURED.read_text(encoding="utf-8"))
