"""The optimiser of all trainings: Muon for kernels and matrices, AdamW for everything else.

Muon makes the step of a matrix orthogonal, so that no direction of it is learnt ten times as fast as another: small
networks get there in half as many steps. Source: Jordan et al., Muon, 2024; the five steps of Newton and Schulz with
the coefficients published there.
"""

import torch

from ...kernels.half_precision import computed_in

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
MOMENTUM = 0.95


def orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """[k, n, m], each with all singular values near one."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.transpose(1, 2) if tall else matrices
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(computed_in(torch.bfloat16, x.device))
    for _ in range(ITERATIONS):
        product = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(product, product, product, beta=b, alpha=c), x, beta=a)
    return (x.transpose(1, 2) if tall else x).float()


class Muon(torch.optim.Optimizer):
    """matrices: parameters of two and more dimensions; kernels are taken as rows x everything else."""

    def __init__(self, matrices, lr: float = 0.02, weight_decay: float = 0.0):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            alike: dict[tuple[int, int], list] = {}  # matrices of one shape pass together
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
                ahead = parameter.grad.lerp(momentum, MOMENTUM).flatten(1)
                alike.setdefault(tuple(ahead.shape), []).append((parameter, ahead))
            for (rows, columns), found in alike.items():
                rate = group["lr"] * max(1.0, rows / columns) ** 0.5
                for (parameter, _), move in zip(
                    found, orthogonal(torch.stack([ahead for _, ahead in found])), strict=True
                ):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(move.view_as(parameter), alpha=-rate)


class Optimiser:
    """Both together. rate: of Muon; `share` of it is AdamW's."""

    def __init__(self, model: torch.nn.Module, rate: float, share: float = 0.1, weight_decay: float = 0.01):
        named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        matrices = [
            p for name, p in named if p.ndim > 1 and min(p.shape[0], p[0].numel()) > 8 and "modulation" not in name
        ]
        chosen = set(map(id, matrices))
        others = [parameter for _, parameter in named if id(parameter) not in chosen]
        self.rate, self.share = rate, share
        self.muon = Muon(matrices, rate, weight_decay)
        self.adam = torch.optim.AdamW(others, lr=rate * share, betas=(0.9, 0.98), weight_decay=0.0)

    def step(self, factor: float) -> None:
        """factor: of the rates in this step, for warming up and down. Gradients are gone afterwards."""
        for optimiser, rate in ((self.muon, self.rate), (self.adam, self.rate * self.share)):
            for group in optimiser.param_groups:
                group["lr"] = rate * factor
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def state_dict(self) -> dict:
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
