"""Test-only ComfyUI pack: lets the stock CLIPLoader open the tiny umt5 file of `tools/tiny_models.py`.

ComfyUI builds umt5 at one size, which it keeps in a JSON file (11 GB in bf16). It also has an option for
exactly this, `umt5xxl_model_config` among the model options of a text encoder, which overrides single numbers
of that file; only no node sets it. So this pack sets it, for state dicts of other sizes than the real one, on
the one function that every way of loading goes through. Nothing of ComfyUI's classes or files is replaced,
and the real file meets the same code as before. Newer releases also tell T5 encoders apart by the width of
the feed-forward, which the tiny one has not, so the function that tells them is asked about other files only.
"""

import functools
import inspect

import comfy.sd

NODE_CLASS_MAPPINGS = {}

REAL_WIDTH, REAL_D_FF = 4096, 10240
LAST_BLOCK = "encoder.block.23.layer.1.DenseReluDense.wi_1.weight"
FIRST_ATTENTION = "encoder.block.0.layer.0.SelfAttention"


def tiny_sizes(state_dict) -> dict[str, int] | None:
    """The sizes of a tiny umt5 as entries of ComfyUI's config, None for every other state dict."""
    shape = tuple(getattr(state_dict.get(LAST_BLOCK), "shape", ()))
    if "spiece_model" not in state_dict or len(shape) != 2 or shape[1] != REAL_WIDTH or shape[0] >= REAL_D_FF:
        return None
    heads = state_dict[f"{FIRST_ATTENTION}.relative_attention_bias.weight"].shape[1]
    return {
        "d_ff": shape[0],
        "num_heads": heads,
        "d_kv": state_dict[f"{FIRST_ATTENTION}.q.weight"].shape[0] // heads,
        "num_layers": sum(key.endswith(".SelfAttention.q.weight") for key in state_dict),
        "vocab_size": state_dict["shared.weight"].shape[0],
    }


def install(sd) -> None:
    """Wrap the two functions of ComfyUI's module `comfy.sd`; a second call does nothing."""
    load, detect = sd.load_text_encoder_state_dicts, sd.detect_te_model
    if hasattr(load, "tiny_umt5"):
        return

    @functools.wraps(load)
    def load_any(*args, **kwargs):
        call = inspect.signature(load).bind(*args, **kwargs)
        call.apply_defaults()
        sizes = [tiny_sizes(state_dict) for state_dict in call.arguments["state_dicts"]]
        if len(sizes) == 1 and sizes[0]:
            call.arguments["model_options"] = {**call.arguments["model_options"], "umt5xxl_model_config": sizes[0]}
        return load(*call.args, **call.kwargs)

    @functools.wraps(detect)
    def detect_any(state_dict):
        return sd.TEModel.T5_XXL if tiny_sizes(state_dict) else detect(state_dict)

    load_any.tiny_umt5 = True
    sd.load_text_encoder_state_dicts, sd.detect_te_model = load_any, detect_any


install(comfy.sd)
