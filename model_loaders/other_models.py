"""Files that are something else than a SkyReels-V3 transformer, told by their names in one sentence."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..skyreels_v3.errors import InputError

HERE = "choose a SkyReels-V3 transformer here"


@dataclass(frozen=True)
class OtherModel:
    """kind: what it is called in the sentence.  marks: parts of keys, each enough to know it.  advice: "
    "what to do."""

    kind: str
    marks: tuple[str, ...]
    advice: str = HERE


LORA = OtherModel(
    "a LoRA",
    (".lora_A", ".lora_B", ".lora_up", ".lora_down", "lora_unet_", "lora_te_", ".lokr_", ".hada_", ".diff_b"),
    "choose the SkyReels-V3 model here and load this file with SkyReels-V3 LoRA after this node",
)

# Built on Wan: they have the transformer's own keys and these besides.
WAN_VARIANTS = (
    OtherModel("Wan VACE", ("vace_blocks.", "vace_patch_embedding.")),
    OtherModel("Wan Animate", ("face_adapter.", "motion_encoder.", "pose_patch_embedding.")),
    OtherModel("Wan S2V", ("casual_audio_encoder.", "audio_injector.")),
    OtherModel("a Wan camera control model", ("control_adapter.",)),
    OtherModel("a Wan Fun control model", ("ref_conv.",)),
)

OTHERS = (
    OtherModel(
        "a CLIP vision model",
        ("vision_model.embeddings.", "visual.transformer.", "visual.patch_embedding", "visual.class_embedding"),
        f"load it with CLIPVisionLoader and {HERE}",
    ),
    OtherModel(
        "a speech encoder",
        ("feature_extractor.conv_layers.", "wav2vec2."),
        f"load it with AudioEncoderLoader and {HERE}",
    ),
    OtherModel(
        "a Stable Diffusion model (SDXL or older)",
        ("input_blocks.0.0.weight", "down_blocks.0.resnets.", "conditioner."),
    ),
    OtherModel("a HunyuanVideo model", ("individual_token_refiner",)),
    OtherModel("a Flux model", ("double_blocks.0.img_attn", "single_transformer_blocks.0.")),
    OtherModel("a Stable Diffusion 3 model", ("joint_blocks.0.",)),
    OtherModel("an LTX-Video model", ("patchify_proj.", "adaln_single.")),
    OtherModel("a Qwen-Image model", ("transformer_blocks.0.img_mod.",)),
    OtherModel(
        "a text encoder",
        ("encoder.block.0.layer.0.", "blocks.0.attn.q.weight", "text_model.encoder.", "self_attn.q_proj.weight"),
        f"load it with CLIPLoader, type wan, and {HERE}",
    ),
    OtherModel(
        "a VAE",
        ("decoder.conv1.", "decoder.conv_in.", "decoder.middle.", "first_stage_model.", "decoder.mid_block."),
        f"load it with VAELoader and {HERE}",
    ),
)

# Formats of other programs, which keep their numbers in tensors with these names.
UNREADABLE = {
    "bitsandbytes": (".absmax", ".quant_state", ".quant_map", ".nested_absmax"),
    "GPTQ or AWQ": (".qweight", ".qzeros"),
    "SVDQuant (nunchaku)": (".smooth_factor", ".proj_down", ".wscales"),
}


def _first(models: Iterable[OtherModel], keys: Iterable[str]) -> OtherModel | None:
    keys = list(keys)
    return next((model for model in models if any(mark in key for mark in model.marks for key in keys)), None)


def refuse_lora(keys: Iterable[str], name: str) -> None:
    """Raise InputError if the file `name` with these keys is a LoRA."""
    if _first((LORA,), keys):
        raise InputError(f"{name} is {LORA.kind}: {LORA.advice}.")


def refuse_wan_variants(shapes: Mapping[str, tuple[int, ...]], name: str) -> None:
    """Raise InputError if the file is a relative of Wan that is none of the four SkyReels-V3 models.

    shapes: Wan name -> shape.
    """
    other = _first(WAN_VARIANTS, shapes)
    if other:
        raise InputError(f"{name} is {other.kind}, not SkyReels-V3: {other.advice}.")
    channels = (*shapes.get("patch_embedding.weight", ()), 0, 0)[1]
    has_audio = any(key.startswith("audio_proj.") for key in shapes)
    if channels != 16 and not has_audio:
        kind = {36: "Wan image to video", 48: "Wan 2.2 5B"}.get(channels, "another model of the Wan family")
        raise InputError(
            f"{name} is {kind}, not SkyReels-V3 (it takes {channels} input channels and has no audio layers): {HERE}."
        )


def refuse_unreadable(keys: Iterable[str], name: str) -> None:
    """Raise InputError if the weights are in a format of another program."""
    keys = list(keys)
    for kind, marks in UNREADABLE.items():
        if any(mark in key for mark in marks for key in keys):
            raise InputError(f"{name} is quantised by {kind}, which is not read here: use the bf16, fp8 or GGUF file.")


def what_it_is(keys: Iterable[str], name: str) -> InputError:
    """The error for a file that has no SkyReels-V3 transformer at all: what it is, or how its tensors are "
    "called."""
    keys = list(keys)
    other = _first(OTHERS, keys)
    if other:
        return InputError(f"{name} is {other.kind}, not a SkyReels-V3 transformer: {other.advice}.")
    first = ", ".join(ascii(key)[1:-1][:60] for key in keys[:3])
    return InputError(
        f"{name} is not a SkyReels-V3 transformer "
        f"({f'its tensors are called {first} ...' if keys else 'it is empty'}): "
        "choose an R2V, V2V or A2V file."
    )
