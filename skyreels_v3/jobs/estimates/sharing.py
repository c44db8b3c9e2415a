"""What it gives to share a forward between cards: the time of one card, divided, and that of what they exchange.

Source of the volume: DeepSpeed-Ulysses (arXiv 2309.14509). Modelled, as long as a setting was not measured itself.
"""

from dataclasses import dataclass

from ...model.params import TransformerParams

WORTH = 1.1  # a gain below this is none


@dataclass(frozen=True)
class Sharing:
    """The cards that share forwards. rate: bytes a second that a card exchanges with the others, as was measured."""

    cards: int
    rate: float

    def exchanged(self, params: TransformerParams, tokens: int, itemsize: int) -> int:
        """Bytes that a card sends in one forward: of queries, keys, values and outputs what other cards attend with.

        tokens: of all segments and the whole batch.
        """
        stream = tokens * params.dim * itemsize
        return int(params.num_layers * 4 * stream * (self.cards - 1) / self.cards**2)

    def balance(self, heads: int) -> float:
        """How much longer the card with the most heads attends than it would if they could be divided evenly."""
        return -(-heads // self.cards) * self.cards / heads

    def seconds(self, alone: float, params: TransformerParams, tokens: int, itemsize: int) -> float:
        """Of a forward that takes `alone` seconds on one card."""
        computing, sent = alone / self.cards * self.balance(params.num_heads), self.exchanged(params, tokens, itemsize)
        return computing + (sent / self.rate if sent else 0)
