"""What a LoRA's tensors tell of the model that it was made for."""

import pytest

from pack.model_loaders.files.tensor_info import TensorInfo
from pack.model_loaders.loras.styles import lora_style

SHAPES = {
    "pairs": {"lora_A.weight": (8, 1536), "lora_B.weight": (1536, 8)},
    "LoHa": {"hada_w1_a": (1536, 8), "hada_w1_b": (8, 1536), "hada_w2_a": (1536, 8), "hada_w2_b": (8, 1536)},
    "LoKr of a whole factor and halves": {"lokr_w1": (16, 16), "lokr_w2_a": (96, 8), "lokr_w2_b": (8, 96)},
    "LoKr of halves and a whole factor": {"lokr_w1_a": (16, 4), "lokr_w1_b": (4, 16), "lokr_w2": (96, 96)},
}


@pytest.mark.parametrize("kind", SHAPES)
def test_every_kind_tells_how_wide_its_model_is(kind):
    """A LoRA for the small Wan of 1536 channels is not advised for one of 5120."""
    query = {f"diffusion_model.blocks.0.self_attn.q.{part}": shape for part, shape in SHAPES[kind].items()}
    other = {f"diffusion_model.blocks.0.ffn.2.{part}": shape for part, shape in SHAPES[kind].items()}
    assert lora_style({key: TensorInfo("F16", shape, 0, 0) for key, shape in query.items()}).width == 1536
    assert lora_style({key: TensorInfo("F16", shape, 0, 0) for key, shape in other.items()}).width == 0
