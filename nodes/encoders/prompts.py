"""The texts of a long run, each encoded once, before anything is sampled."""

import html
import re
from collections.abc import Iterable

import torch

from ...skyreels_v3.model.memory import TEXT_TOKENS


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
                conditioning = self.clip.encode_from_tokens_scheduled(official_tokens(self.clip, text))
                self.encoded[text] = [[without_padding(tokens), extra] for tokens, extra in conditioning]

    def __getitem__(self, text: str) -> list:
        """The CONDITIONING of a text."""
        self.prepare([text])
        return self.encoded[text]


def official_tokens(clip, text: str) -> dict:
    """What ComfyUI's text encoder takes, with the token ids of the official code: brackets are text, not weights, and
    what is longer than the models know is cut, its last token the one that ends a text."""
    # ComfyUI takes the backslash before a bracket away, which keeps it from being a weight; no bracket is one here.
    kept = re.sub(r"\\([()])", r"\\\\\1", official_text(text))
    tokens = clip.tokenize(kept, disable_weights=True)
    return {
        name: [[*row[: TEXT_TOKENS - 1], row[-1]] if len(row) > TEXT_TOKENS else row for row in rows]
        for name, rows in tokens.items()
    }


def official_text(text: str) -> str:
    """A prompt as the models were trained to read it: typographic signs as on a keyboard, HTML's entities as their
    signs, spaces and line ends as one space.

    Source: prompt_clean of the official reference_to_video_pipeline.py.
    """
    import ftfy  # not at start-up: it takes as long as the rest of the pack

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())


def without_padding(tokens: torch.Tensor) -> torch.Tensor:
    """An encoding [1, n, width] without the zero rows at its end, which the model adds again: 8 MB become 1."""
    used = tokens.ne(0).any(dim=-1).any(dim=0).nonzero()
    return tokens[:, : int(used[-1]) + 1 if len(used) else 1].clone()
