"""The official guidance in the form of ComfyUI's GUIDER."""

import comfy.samplers

from ...skyreels_v3.sampling.guidance import Branch, combine
from ..network.condition import attach, condition_of


class BranchGuider(comfy.samplers.CFGGuider):
    """A guider that runs the branches of skyreels_v3.sampling.guidance and adds them up by their weights."""

    def set_branches(self, positive: list, negative: list | None, branches: dict[Branch, float]) -> None:
        """positive, negative: CONDITIONING from a SkyReels-V3 node.  branches: forwards and their weights."""
        condition = condition_of(positive)
        empty = None if condition is None else condition.emptied()
        self.branches = branches
        conditionings = {}
        for branch in branches:
            conditioning = positive if branch.uses_prompt else negative
            if not branch.uses_references and empty is not None and conditioning is not None:
                conditioning = attach(conditioning, empty)
            conditionings[branch.name.lower()] = conditioning
        self.inner_set_conds(conditionings)

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        """The guided clean latent, [B, 16, T, H, W]."""
        options = {} if model_options is None else model_options
        conditionings = [self.conds[branch.name.lower()] for branch in self.branches]
        predictions = comfy.samplers.calc_cond_batch(self.inner_model, conditionings, x, timestep, options)
        return combine(predictions, list(self.branches.values()))
