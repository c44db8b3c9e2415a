"""umt5 of any size for the stock CLIPLoader.

ComfyUI keeps the sizes of umt5-xxl in a JSON file, and has an option for other ones: `umt5xxl_model_config` among the
model options of a text encoder overrides single numbers of that file; only no node sets it.
"""

import inspect

from .wrapping import wrap

FIRST = "encoder.block.0.layer"
# Widths of the stream and of the feed-forward that ComfyUI opens by itself: umt5-xxl and umt5-base.
KNOWN = {(4096, 10240), (768, 2048)}


def sizes(state_dict) -> dict[str, int] | None:
    """The sizes of a umt5 that ComfyUI does not know, as entries of its config; None for every other state dict."""
    bias = state_dict.get(f"{FIRST}.0.SelfAttention.relative_attention_bias.weight")
    inner = state_dict.get(f"{FIRST}.1.DenseReluDense.wi_1.weight")
    if "spiece_model" not in state_dict or bias is None or inner is None or inner.shape[::-1] in KNOWN:
        return None
    heads = bias.shape[1]
    return {
        "d_model": inner.shape[1],
        "d_ff": inner.shape[0],
        "num_heads": heads,
        "d_kv": state_dict[f"{FIRST}.0.SelfAttention.q.weight"].shape[0] // heads,
        "num_layers": sum(key.endswith(".SelfAttention.q.weight") for key in state_dict),
        "vocab_size": state_dict["shared.weight"].shape[0],
    }


def install() -> None:
    import comfy.sd

    def loading(load):
        def load_any(*args, **kwargs):
            call = inspect.signature(load).bind(*args, **kwargs)
            call.apply_defaults()
            state_dicts, options = call.arguments["state_dicts"], call.arguments["model_options"]
            if len(state_dicts) == 1 and (found := sizes(state_dicts[0])):
                dtype = state_dicts[0]["shared.weight"].dtype  # as for the real one, what the file has
                call.arguments["model_options"] = {"dtype": dtype, **options, "umt5xxl_model_config": found}
            return load(*call.args, **call.kwargs)

        return load_any

    def telling(detect):
        return lambda state_dict: comfy.sd.TEModel.T5_XXL if sizes(state_dict) else detect(state_dict)

    wrap(comfy.sd, "load_text_encoder_state_dicts", loading)
    wrap(comfy.sd, "detect_te_model", telling)
