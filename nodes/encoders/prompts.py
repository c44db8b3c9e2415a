"""The texts of a long job, each encoded once, before anything is sampled."""

from collections.abc import Iterable

import torch


class Prompts:
    """Encoded texts by their words.

    All are encoded first: the text encoder and the transformer rarely fit a card together, and to change between them
    for every line would cost more than the line's sampling.
    """

    def __init__(self, clip):
        self.clip = clip
        self.encoded: dict[str, list] = {}

    def prepare(self, texts: Iterable[str]) -> None:
        """Encodes those that are not yet."""
        for text in texts:
            if text not in self.encoded:
                conditioning = self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))
                self.encoded[text] = [[without_padding(tokens), extra] for tokens, extra in conditioning]

    def __getitem__(self, text: str) -> list:
        """The CONDITIONING of a text."""
        self.prepare([text])
        return self.encoded[text]


def without_padding(tokens: torch.Tensor) -> torch.Tensor:
    """An encoding [1, n, width] without the zero rows at its end, which the model adds again: 8 MB become 1."""
    used = tokens.ne(0).any(dim=-1).any(dim=0).nonzero()
    return tokens[:, : int(used[-1]) + 1 if len(used) else 1].clone()
