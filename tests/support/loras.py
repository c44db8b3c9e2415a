"""Small LoRAs for the tiny transformers, in the names of every trainer."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from pack.dev.samples.tiny_models import TINY, random_weight, transformer_weights
from pack.model_loaders.architecture.key_maps import DIFFUSERS
from pack.model_loaders.architecture.params import expected_shapes
from pack.skyreels_v3.model.params import TransformerParams

RANK, ALPHA = 4, 2.0
# name -> (before the layer, names of the layers, what stands for dots in them, down, up, alpha)
NAMINGS = {
    "wan": ("", "wan", ".", ".lora_A.weight", ".lora_B.weight", ".alpha"),
    "diffusion-pipe": ("diffusion_model.", "wan", ".", ".lora_A.weight", ".lora_B.weight", ".alpha"),
    "extracted": ("diffusion_model.", "wan", ".", ".lora_down.weight", ".lora_up.weight", ".alpha"),
    "fastvideo": ("", "wan", ".", ".lora_A", ".lora_B", ".lora_alpha"),
    "compiled": ("_orig_mod.", "wan", ".", ".lora_A.weight", ".lora_B.weight", ".alpha"),
    "sharded": ("model._fsdp_wrapped_module.", "wan", "._checkpoint_wrapped_module.", ".lora_A", ".lora_B", ".alpha"),
    "whole": ("model.diffusion_model.", "wan", ".", ".lora_A", ".lora_B", ".alpha"),
    "peft": ("base_model.model.", "wan", ".", ".lora_A.default.weight", ".lora_B.default.weight", ".alpha"),
    "diffsynth": ("pipe.dit.", "wan", ".", ".lora_A.default.weight", ".lora_B.default.weight", ".alpha"),
    "adapters": (
        "pipe.dit.",
        "wan",
        ".",
        ".lora_A.default_0.default.weight",
        ".lora_B.default_0.default.weight",
        ".alpha",
    ),
    "own adapter": ("", "wan", ".", ".lora_A.my-style_2.weight", ".lora_B.my-style_2.weight", ".alpha"),
    "first of two": ("transformer_1.", "diffusers", ".", ".lora_A.weight", ".lora_B.weight", ".alpha"),
    "second of two": ("diffusion_model_2.", "wan", ".", ".lora_A.weight", ".lora_B.weight", ".alpha"),
    "low noise": ("low_noise_model.", "wan", ".", ".lora_A.weight", ".lora_B.weight", ".alpha"),
    "nested": ("base_model.model.diffusion_model.", "wan", ".", ".lora_A.weight", ".lora_B.weight", ".alpha"),
    "kohya": ("lora_unet__", "wan", "_", ".lora_down.weight", ".lora_up.weight", ".alpha"),
    "musubi": ("lora_unet_", "wan", "_", ".lora_down.weight", ".lora_up.weight", ".alpha"),
    "lycoris": ("lycoris_", "wan", "_", ".lora_down.weight", ".lora_up.weight", ".alpha"),
    "diffusers": ("transformer.", "diffusers", ".", ".lora_A.weight", ".lora_B.weight", ".alpha"),
    "diffusers, old": ("transformer.", "diffusers", ".", ".lora.down.weight", ".lora.up.weight", ".alpha"),
    "diffusers, older": ("", "diffusers", ".", "_lora.down.weight", "_lora.up.weight", ".alpha"),
    "linear layer": ("", "diffusers", ".", ".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight", ".alpha"),
    "lycoris, diffusers": ("lycoris_", "diffusers", "_", ".lora_down.weight", ".lora_up.weight", ".alpha"),
    "onetrainer": ("lora_transformer_", "diffusers", "_", ".lora_down.weight", ".lora_up.weight", ".alpha"),
}


def linear_layers(params: TransformerParams = TINY) -> dict[str, tuple[int, int]]:
    """Wan name -> (rows, columns) of every linear layer."""
    shapes = expected_shapes(params)
    return {name.removesuffix(".weight"): shape for name, shape in shapes.items() if len(shape) == 2}


def lora_pairs(params: TransformerParams = TINY, rank: int = RANK, seed: int = 0, layers=None):
    """Wan name of a layer -> (down, up), with up @ down a tenth as large as the layer's weight."""
    pairs = {}
    for name, (rows, columns) in linear_layers(params).items():
        if layers is None or name in layers:
            down = random_weight(f"{name}.down", (rank, columns), seed)
            up = random_weight(f"{name}.up", (rows, rank), seed)
            pairs[name] = down, up * 0.1
    return pairs


def changed_weights(pairs, scale: float) -> dict[str, torch.Tensor]:
    """Wan name of a weight -> what a LoRA adds to it."""
    return {f"{name}.weight": scale * up @ down for name, (down, up) in pairs.items()}


def lora_products(kind: str, params: TransformerParams = TINY, layers=None) -> dict[str, dict[str, torch.Tensor]]:
    """Wan name of a layer -> part -> tensor, of a LoKr, a LoHa or a DoRA of LoRAs, LoKrs and LoHas: every form that
    trainers write, one after the other.

    The change is about a tenth as large as the layer's weight."""
    if kind == "DoRA":
        pairs = lora_pairs(params, layers=layers)
        plain = {name: {"lora_down.weight": down, "lora_up.weight": up} for name, (down, up) in pairs.items()}
        each = (plain, lora_products("LoKr", params, layers), lora_products("LoHa", params, layers))
        weights = transformer_weights(params)
        return {
            name: each[index % 3][name] | {"dora_scale": magnitude(name, weights[f"{name}.weight"])}
            for index, name in enumerate(plain)
        }
    products = {}
    for index, (name, (rows, columns)) in enumerate(linear_layers(params).items()):
        if layers is not None and name not in layers:
            continue
        shapes = {}
        if kind == "LoKr":
            groups = ((4, 8), (8, 2), (16, 16), (1, 4))[index % 4]
            factors = {"w1": groups, "w2": (rows // groups[0], columns // groups[1])}
            for factor, (height, width) in factors.items():
                if (index // 4) % 4 in {"w1": (2, 3), "w2": (1, 3)}[factor]:
                    shapes |= {f"lokr_{factor}_a": (height, RANK), f"lokr_{factor}_b": (RANK, width)}
                else:
                    shapes[f"lokr_{factor}"] = height, width
        else:
            # The second rank is so large that the product is made whole.
            rank = (RANK, 12)[index % 2]
            for factor in ("w1", "w2"):
                shapes |= {f"hada_{factor}_a": (rows, rank), f"hada_{factor}_b": (rank, columns)}
        products[name] = {part: random_weight(f"{name}.{part}", shape) for part, shape in shapes.items()}
        if kind == "LoKr":
            products[name][next(iter(shapes))] *= 0.15
    return products


def magnitude(name: str, weight: torch.Tensor) -> torch.Tensor:
    """A DoRA's, [rows, 1]: a tenth off the lengths of the rows."""
    factor = 1 + 0.1 * torch.randn(len(weight), 1, generator=torch.Generator().manual_seed(len(name)))
    return factor * weight.norm(dim=1, keepdim=True)


def named_products(products, naming: str = "diffusion-pipe", alpha: float | None = None) -> dict[str, torch.Tensor]:
    """The tensors of a LoKr's or a LoHa's file in one trainer's names."""
    prefix, dialect, dot, *_, alpha_end = NAMINGS[naming]
    names = DIFFUSERS.inverted().rename(products) if dialect == "diffusers" else {name: name for name in products}
    tensors = {}
    for name, parts in products.items():
        layer = prefix + names[name].replace(".", dot)
        tensors |= {f"{layer}.{part}": tensor for part, tensor in parts.items()}
        if alpha is not None:
            tensors[layer + alpha_end] = torch.tensor(alpha)
    return tensors


def named(pairs, naming: str = "diffusion-pipe", alpha: float | None = None) -> dict[str, torch.Tensor]:
    """The tensors of a LoRA file in one trainer's names."""
    prefix, dialect, dot, down_end, up_end, alpha_end = NAMINGS[naming]
    names = DIFFUSERS.inverted().rename(pairs) if dialect == "diffusers" else {name: name for name in pairs}
    tensors = {}
    for name, (down, up) in pairs.items():
        layer = prefix + names[name].replace(".", dot)
        tensors[layer + down_end], tensors[layer + up_end] = down, up
        if alpha is not None:
            tensors[layer + alpha_end] = torch.tensor(alpha)
    return tensors


def write_lora(path: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata)
    return path
