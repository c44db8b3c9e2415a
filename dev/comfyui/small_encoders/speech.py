"""wav2vec2 of any size for the stock AudioEncoderLoader, in the layout of base or of large."""

from .sizes import heads
from .wrapping import wrap

KNOWN = {(768, 512), (1024, 512)}  # widths of transformer and convolutions that ComfyUI opens by itself
SECOND = "feature_extractor.conv_layers.1"


def config(state_dict) -> dict | None:
    """The arguments of ComfyUI's Wav2Vec2Model and `conv_dim`, None for what ComfyUI knows or is no wav2vec2."""
    projection = state_dict.get("feature_projection.projection.weight")
    if projection is None or tuple(projection.shape) in KNOWN:
        return None
    width, convolved = projection.shape
    large = f"{SECOND}.layer_norm.weight" in state_dict
    return {
        "conv_dim": convolved,
        "embed_dim": width,
        "num_heads": heads(width),
        "num_layers": sum(key.endswith(".attention.q_proj.weight") for key in state_dict),
        "conv_norm": large,
        "conv_bias": f"{SECOND}.conv.bias" in state_dict,
        "do_normalize": large,
        "do_stable_layer_norm": large,
    }


def install() -> None:
    import comfy.model_management
    import comfy.ops
    from comfy.audio_encoders import audio_encoders, wav2vec2

    def build(found: dict):
        found = dict(found)
        convolved, width = found.pop("conv_dim"), found["embed_dim"]
        encoder = audio_encoders.AudioEncoderModel({"model_type": "wav2vec2", **found})
        model, options = encoder.model, {"dtype": encoder.dtype, "device": encoder.patcher.offload_device}
        options["operations"] = comfy.ops.manual_cast
        # The width that ComfyUI has no argument for.
        kinds = {kind: found[kind] for kind in ("conv_norm", "conv_bias")}
        model.feature_extractor = wav2vec2.ConvFeatureEncoder(convolved, **kinds, **options)
        model.feature_projection = wav2vec2.FeatureProjection(convolved, width, **options)
        model.eval()
        if hasattr(comfy.model_management, "archive_model_dtypes"):  # newer releases
            comfy.model_management.archive_model_dtypes(model)
        return encoder

    def loading(load):
        def load_any(sd, *args, **kwargs):
            found = config(sd)
            if found is None:
                return load(sd, *args, **kwargs)
            encoder = build(found)
            missing, unexpected = encoder.load_sd(sd)
            if missing or unexpected:
                raise RuntimeError(f"The wav2vec2 file lacks or does not need {', '.join([*missing, *unexpected])}.")
            return encoder

        return load_any

    wrap(audio_encoders, "load_audio_encoder_from_sd", loading)
