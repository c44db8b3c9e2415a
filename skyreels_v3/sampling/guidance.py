"""Guidance: the forwards of a step, and how their predictions are combined.

All formulas are linear with weights that sum to 1, so they hold for velocities and for clean latents alike.
Source: reference_to_video_pipeline.py of the official code, with text guidance t and image guidance i:

    none + i (negative - none) + t (positive - negative)

positive: prompt and references.  negative: negative prompt and references.  none: negative prompt, empty slots.

The avatar's formula (talking_avatar_pipeline.py) is the same with speech in the place of the references, with text
guidance t and speech guidance a: none + t (positive - negative) + a (negative - none).
"""

import math
from enum import Enum

import torch

from ..errors import InputError


class Branch(Enum):
    """One forward: which prompt and which reference slots it is given.

    In the avatar job speech stands in the place of the references: where slots are empty, its features are zero.
    """

    POSITIVE = ("prompt", "references")
    NEGATIVE = ("negative prompt", "references")
    NONE = ("negative prompt", "empty slots")
    PROMPT_ALONE = ("prompt", "empty slots")

    @property
    def uses_prompt(self) -> bool:
        return self.value[0] == "prompt"

    @property
    def uses_references(self) -> bool:
        """Of the avatar: whether it is given the speech."""
        return self.value[1] == "references"


def reference_branches(text: float, image: float) -> dict[Branch, float]:
    """The forwards of the reference job and the weight of each; no forward is run for a weight of 0.

    | text guidance | image guidance | forwards |
    | --- | --- | --- |
    | <= 1 | <= 1 | positive alone, as officially |
    | <= 1 | > 1 | positive, and the same prompt with empty slots: plain guidance on the images |
    | > 1 | any | the formula: three, or two where a weight vanishes (image 1, or image equal to text) |

    In the second row image guidance is officially off without a word; what is done here is the rule of the official
    avatar pipeline for one guidance alone.
    Raises InputError for a NaN or infinite guidance.
    """
    _check("text", text)
    _check("image", image)
    if text > 1:
        weights = {Branch.POSITIVE: text, Branch.NEGATIVE: image - text, Branch.NONE: 1 - image}
    elif image > 1:
        weights = {Branch.POSITIVE: image, Branch.PROMPT_ALONE: 1 - image}
    else:
        weights = {Branch.POSITIVE: 1.0}
    return {branch: weight for branch, weight in weights.items() if weight}


def avatar_branches(text: float, audio: float) -> dict[Branch, float]:
    """The forwards of the avatar job and the weight of each; where only one is above 1, plain guidance on that one.

    Raises InputError for a NaN or infinite guidance.
    """
    _check("text", text)
    _check("audio", audio)
    return reference_branches(text, max(audio, 1.0))


def text_branches(text: float) -> dict[Branch, float]:
    """Forwards and weights of plain guidance, negative + t (positive - negative); one forward up to 1.

    Source: the official extension pipelines. Raises InputError for a NaN or infinite guidance.
    """
    _check("text", text)
    if text <= 1:
        return {Branch.POSITIVE: 1.0}
    return {Branch.POSITIVE: text, Branch.NEGATIVE: 1 - text}


def combine(predictions: list[torch.Tensor], weights: list[float]) -> torch.Tensor:
    """Weighted sum of predictions of one shape, in their dtype; summed in float32 or better."""
    dtype = predictions[0].dtype
    total = predictions[0].to(torch.promote_types(dtype, torch.float32)) * weights[0]
    for prediction, weight in zip(predictions[1:], weights[1:]):
        total.add_(prediction.to(total.dtype), alpha=weight)
    return total.to(dtype)


def _check(name: str, guidance: float) -> None:
    if not math.isfinite(guidance):
        raise InputError(f"The {name} guidance is {guidance}, but it must be a number: the models are made for 1.")
