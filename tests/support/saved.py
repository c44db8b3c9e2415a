"""What a checkpoint holds, to compare it with another."""

import torch

from pack.model_loaders.architecture.params import expected_shapes
from pack.model_loaders.weights import load_weights


def numbers(checkpoint) -> dict[str, torch.Tensor]:
    """Wan name -> what is stored, as float32."""
    weights = load_weights(checkpoint)
    found = {}
    for name, shape in expected_shapes(checkpoint.params).items():
        layer = name.removesuffix(".weight")
        if name.endswith(".weight") and layer in weights.formats:
            beside = f"{layer}.weight"
            parts = {key.removeprefix(f"{layer}."): t for key, t in weights.tensors.items() if key.startswith(beside)}
            found[name] = weights.formats[layer].unpack(parts, *shape, torch.float32)
        else:
            found[name] = weights.tensors[name].float()
    return found


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    def bits(tensor):
        return tensor.contiguous().reshape(-1).view(torch.uint8)

    return one.keys() == other.keys() and all(torch.equal(bits(one[key]), bits(other[key])) for key in one)
