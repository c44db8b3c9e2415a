"""The official guidance in the form of ComfyUI's GUIDER."""

import comfy.samplers

from ...skyreels_v3.errors import InputError
from ...skyreels_v3.sampling.guidance import Branch, combine
from ..network.condition import attach, condition_of

# What other nodes put into a model's options to change guidance.
HOOKS = (
    "sampler_calc_cond_batch_function",
    "sampler_cfg_function",
    "sampler_post_cfg_function",
    "sampler_pre_cfg_function",
)
NAMES = ("positive", "negative", "none")  # of the conditionings of the branches; the first two are ComfyUI's


class BranchGuider(comfy.samplers.CFGGuider):
    """A guider that runs the branches of skyreels_v3.sampling.guidance and adds them up by their weights.

    One branch, or two, are ComfyUI's own guidance, with all that other nodes hang into it.
    """

    def set_branches(self, positive: list, negative: list | None, branches: dict[Branch, float]) -> None:
        """positive, negative: CONDITIONING from a SkyReels-V3 node.  branches: forwards and their weights.

        Raises InputError where a node on the model works on another guidance than this one.
        """
        condition = condition_of(positive)
        empty = None if condition is None else condition.emptied()
        self.branches = branches
        self.set_cfg(next(iter(branches.values())))
        conditionings = {}
        for name, branch in zip(NAMES, self._checked(branches, negative), strict=False):
            conditioning = positive if branch.uses_prompt else negative
            if not branch.uses_references and empty is not None and conditioning is not None:
                conditioning = attach(conditioning, empty)
            conditionings[name] = conditioning
        self.inner_set_conds(conditionings)

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        """The guided clean latent, [B, 16, T, H, W]."""
        options = {} if model_options is None else model_options
        if len(self.branches) < len(NAMES):
            return super().predict_noise(x, timestep, options, seed)
        conditionings = [self.conds[name] for name in NAMES]
        predictions = comfy.samplers.calc_cond_batch(self.inner_model, conditionings, x, timestep, options)
        return combine(predictions, list(self.branches.values()))

    def _checked(self, branches: dict[Branch, float], negative: list | None) -> list[Branch]:
        """The branches, and the negative one where a node on the model runs it at guidance 1 too."""
        hooks = [name for name in HOOKS if self.model_options.get(name)]
        if hooks and len(branches) > 2:
            raise InputError(
                f"A node changed the model's guidance ({', '.join(hooks)}), which is made for two forwards a step, but "
                "with both guidances above 1 each step takes three: set one of them to 1, or remove that node."
            )
        if len(branches) > 1 or not self.model_options.get("disable_cfg1_optimization"):
            return list(branches)
        if negative is None:
            raise InputError(
                "A node on the model compares with the negative prompt in every step, but at guidance 1 none is given: "
                "connect negative, or set the text guidance above 1, or remove that node."
            )
        return [*branches, Branch.NEGATIVE]
