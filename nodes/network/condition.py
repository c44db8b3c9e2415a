"""How a job's in-context latents travel: inside CONDITIONING, to a SkyReels-V3 model and to no other."""

from dataclasses import dataclass, replace

import comfy.conds
import node_helpers
import torch

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.jobs.avatar.condition import silent
from ...skyreels_v3.jobs.spec import SPECS
from ...skyreels_v3.model.speaker_map import PositionMap
from ...skyreels_v3.recipes import Job

KEY = "skyreels_condition"


class RefusedCondition(comfy.conds.CONDRegular):
    """Stands in for a condition that the sampled model cannot use; raises when a forward would need it.

    It waits until then, because ComfyUI also prepares the negative conditioning that guidance 1 never runs.
    """

    def __init__(self, message: str):
        super().__init__(torch.zeros(1))
        self.message = message

    def process_cond(self, batch_size, **kwargs):
        raise InputError(self.message)


class SharedCondition(comfy.conds.CONDConstant):
    """A tensor that all rows of a batch share. Forwards with another one run apart: speech is not one row a batch."""

    def can_concat(self, other):
        return self.cond is other.cond or torch.equal(self.cond, other.cond)

    def size(self):
        return [1]


@dataclass(frozen=True)
class JobCondition:
    """What one job gives the model besides the prompt, in model space.

    latents: [1, C, frames, height, width]: reference slots, prefix, or the avatar's mask and image channels.
    image: CLIP tokens [1, 257, width].  speech: windows [people, video frames, around, layers, width].
    speakers: masks [people + 1, h, w], the last one the background.  position_map: how their tokens are told which
    of them they are.  speaker_ranges: of more than two people, see `SpeakerMap.of`.  These five for the avatar alone.
    """

    job: Job
    latents: torch.Tensor
    image: torch.Tensor | None = None
    speech: torch.Tensor | None = None
    speakers: torch.Tensor | None = None
    position_map: PositionMap = PositionMap.OWN_FRAME
    speaker_ranges: torch.Tensor | None = None

    def emptied(self) -> "JobCondition":
        """For the forwards of guidance without references, or, for the avatar, without speech."""
        if self.speech is not None:
            return replace(self, speech=silent(self.speech))
        return replace(self, latents=torch.zeros_like(self.latents))


def attach(conditioning: list, condition: JobCondition) -> list:
    """Conditioning with `condition` in it.

    A model from another loader does not know the key and would ignore it without a word; the stand-in under
    `model_conds` makes it raise, while a SkyReels-V3 model puts the latents in its place.
    """
    refused = RefusedCondition(
        f"This conditioning was made by {SPECS[condition.job].node} of SkyReels-V3, but the model comes from another "
        "loader: load the checkpoint with SkyReels-V3 Load Model."
    )
    values = {KEY: condition, "model_conds": {KEY: refused}}
    return node_helpers.conditioning_set_values(conditioning, values)


def attach_pair(positive: list, negative: list | None, condition: JobCondition) -> tuple[list, list]:
    """Both prompts with `condition` in them. Without a negative one its stand-in raises where guidance needs it.

    Officially a missing prompt is an empty one, whose encoding only the text encoder can make; zeros are none.
    """
    attached = attach(positive, condition)
    if negative is not None:
        return attached, attach(negative, condition)
    missing = RefusedCondition(
        "Guidance (cfg) above 1 needs a negative prompt, but none is connected to "
        f"{SPECS[condition.job].node}: connect a CLIP Text Encode to its negative, empty or not, or set it to 1."
    )
    refused = [extra["model_conds"] | {"skyreels_negative": missing} for _, extra in attached]
    return attached, [[text, {**extra, "model_conds": conds}] for (text, extra), conds in zip(attached, refused)]


def condition_of(conditioning: list) -> JobCondition | None:
    """The first condition in a CONDITIONING."""
    return next((extra[KEY] for _, extra in conditioning if KEY in extra), None)
