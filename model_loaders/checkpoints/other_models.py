"""Files that are something else than a SkyReels-V3 transformer: told by the names in them, in one sentence."""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ...skyreels_v3.errors import InputError
from ..architecture import companions
from ..architecture.companions import Companion
from ..loras.names import other_kind, split

HERE = "choose a SkyReels-V3 transformer here"


@dataclass(frozen=True)
class OtherModel:
    """kind: what it is called in a sentence.  marks: parts of keys, each enough to know it.

    without: parts of keys that it does not have.  companion: the companion of a job that it is, or stands for.
    suits: whether the jobs can use this one.  use: what to do with it, where that is not to load it as a companion.
    """

    kind: str
    marks: tuple[str, ...]
    without: tuple[str, ...] = ()
    companion: Companion | None = None
    suits: bool = False
    use: str = ""

    @property
    def advice(self) -> str:
        """What to do where it was chosen for a transformer."""
        use = self.use or (f"load it with {self.companion.loader}" if self.companion else "")
        return f"{use} and {HERE}" if use else HERE

    def is_in(self, keys: list[str]) -> bool:
        """Whether keys are those of this model."""
        return _any(self.marks, keys) and not _any(self.without, keys)


class AnotherModel(InputError):
    """A file that is another model, which is known."""

    def __init__(self, message: str, model: OtherModel):
        super().__init__(message)
        self.model = model


# Built on Wan: they have the transformer's own keys and these besides.
WAN_VARIANTS = (
    OtherModel("Wan VACE", ("vace_blocks.", "vace_patch_embedding.")),
    OtherModel("Wan Animate", ("face_adapter.", "motion_encoder.", "pose_patch_embedding.")),
    OtherModel("Wan S2V", ("casual_audio_encoder.", "audio_injector.")),
    OtherModel("HuMo", ("audio_cross_attn_wrapper.", "audio_proj_glob_")),
    OtherModel("FantasyTalking", ("proj_model.proj.", "cross_attn.processor.")),
    OtherModel("SkyReels-V2", ("fps_embedding.", "fps_projection.")),
    OtherModel("a Wan camera control model", ("control_adapter.",)),
    OtherModel("a Wan Fun control model", ("ref_conv.",)),
)

# The first that fits is taken: those with the rarest marks stand first.
OTHERS = (
    OtherModel(
        "the CLIP vision H model",
        ("vision_model.encoder.layers.31.", "visual.transformer.31."),
        ("layers.32.", "text_model."),
        companions.CLIP_VISION,
        suits=True,
    ),
    OtherModel(
        "a CLIP vision model",
        ("vision_model.embeddings.", "visual.transformer.", "visual.patch_embedding", "visual.class_embedding"),
        companion=companions.CLIP_VISION,
    ),
    OtherModel("a Whisper encoder", ("encoder.embed_positions.",), companion=companions.SPEECH_ENCODER),
    OtherModel(
        "a wav2vec2 speech encoder",
        ("feature_extractor.conv_layers.",),
        ("encoder.layers.12.",),
        companions.SPEECH_ENCODER,
        suits=True,
    ),
    OtherModel(
        "a speech encoder", ("feature_extractor.conv_layers.", "wav2vec2."), companion=companions.SPEECH_ENCODER
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
    OtherModel("a VACE module for Wan", ("vace_blocks.", "vace_patch_embedding.")),
    # Only umt5 has this in other blocks than the first.
    OtherModel(
        "the umt5 text encoder",
        ("block.1.layer.0.SelfAttention.relative_attention_bias",),
        companion=companions.TEXT_ENCODER,
        suits=True,
    ),
    OtherModel(
        "the umt5 text encoder in Wan's own names",
        ("blocks.1.pos_embedding.embedding.",),
        companion=companions.TEXT_ENCODER,
        use="keep it for the pack ComfyUI-WanVideoWrapper",
    ),
    OtherModel(
        "a text encoder",
        (
            "encoder.block.0.layer.0.",
            "blocks.0.attn.q.weight",
            "text_model.encoder.",
            "self_attn.q_proj.weight",
        ),
        companion=companions.TEXT_ENCODER,
    ),
    OtherModel("the VAE of Wan 2.2 5B", ("decoder.upsamples.0.upsamples.",), companion=companions.VAE),
    OtherModel("the VAE of Wan 2.1", ("decoder.middle.0.residual.",), companion=companions.VAE, suits=True),
    OtherModel(
        "a VAE",
        ("decoder.conv1.", "decoder.conv_in.", "decoder.middle.", "first_stage_model.", "decoder.mid_block."),
        companion=companions.VAE,
    ),
    OtherModel("the audio layers of a talking model without the model", (".audio_cross_attn.",), (".self_attn.",)),
    OtherModel(
        "a part of a Wan transformer",
        ("_attn.norm_q.", ".attn1.norm_q.", ".attn2.norm_q."),
        ("transformer_blocks.",),
        use="put all files of the model into one folder",
    ),
)

UMT5_GGUF = OtherModel(
    "the umt5 text encoder in GGUF",
    ("enc.blk.1.attn_rel_b.",),
    companion=companions.TEXT_ENCODER,
    suits=True,
    use="load it with CLIPLoader (GGUF), type wan, of the pack ComfyUI-GGUF",
)
T5_GGUF = dataclasses.replace(UMT5_GGUF, kind="a T5 text encoder in GGUF", marks=("enc.blk.",), suits=False)
# What GGUF files of other models call themselves.
ARCHITECTURES = {
    "flux": OtherModel("a Flux model", ()),
    "hyvid": OtherModel("a HunyuanVideo model", ()),
    "ltxv": OtherModel("an LTX-Video model", ()),
    "qwen_image": OtherModel("a Qwen-Image model", ()),
    "sd1": OtherModel("a Stable Diffusion model", ()),
    "sd3": OtherModel("a Stable Diffusion 3 model", ()),
    "sdxl": OtherModel("a Stable Diffusion XL model", ()),
    **dict.fromkeys(("t5", "t5encoder"), T5_GGUF),
    **dict.fromkeys(
        ("llama", "qwen2", "qwen2vl", "qwen3", "gemma2", "gemma3"),
        OtherModel("a language model or text encoder", ()),
    ),
}

PART_OF_WAN = OTHERS[-1]

# Formats of other programs, which keep their numbers in tensors with these names; a last dot is a name's end.
UNREADABLE = {
    "bitsandbytes": (".absmax", ".quant_state", ".quant_map", ".nested_absmax"),
    "GPTQ or AWQ": (".qweight", ".qzeros"),
    "SVDQuant (nunchaku)": (".smooth_factor", ".proj_down", ".wscales"),
    "quanto": (".weight._data.", ".weight._scale."),
    "torchao": ("._weight_qdata.", ".weight_qdata."),
    "DFloat11": (".encoded_exponent.", ".sign_mantissa."),
    "SDNQ": (".svd_up.", ".svd_down.", ".zero_point.", ".scale."),
}


def _any(marks: Iterable[str], keys: list[str]) -> bool:
    return any(mark in key for mark in marks for key in keys)


def _first(models: Iterable[OtherModel], keys: Iterable[str]) -> OtherModel | None:
    keys = list(keys)
    return next((model for model in models if model.is_in(keys)), None)


def foreign_format(keys: Iterable[str]) -> str | None:
    """The program whose format the weights are in, None if they are not in another program's."""
    keys = [f"{key}." for key in keys]
    return next((kind for kind, marks in UNREADABLE.items() if _any(marks, keys)), None)


def is_lora(keys: Iterable[str]) -> bool:
    """Whether a file with these keys holds changes of weights, of whichever kind and in the names of any trainer."""
    keys = list(keys)
    # an alpha alone may be a parameter of any network
    return other_kind(keys) is not None or any(found[1] != "alpha" for found in map(split, keys) if found)


def architecture_model(keys: Iterable[str], architecture: str) -> OtherModel | None:
    """What a GGUF file is that says to be of another architecture, None if that is not known. The keys say more."""
    return _first((UMT5_GGUF, T5_GGUF, *OTHERS), keys) or ARCHITECTURES.get(architecture)


def refuse_lora(keys: Iterable[str], name: str) -> None:
    """Raise InputError if the file `name` with these keys is a LoRA."""
    if is_lora(keys):
        raise InputError(
            f"{name} is a LoRA: choose the SkyReels-V3 model here and load this file with SkyReels-V3 LoRA after this "
            "node."
        )


def refuse_wan_variants(shapes: Mapping[str, tuple[int, ...]], name: str) -> None:
    """Raise InputError if the file is a relative of Wan that is none of the four SkyReels-V3 models.

    shapes: Wan name -> shape.
    """
    other = _first(WAN_VARIANTS, shapes)
    if other:
        raise AnotherModel(f"{name} is {other.kind}, not SkyReels-V3: {other.advice}.", other)
    channels = (*shapes.get("patch_embedding.weight", ()), 0, 0)[1]
    has_audio = any(key.startswith("audio_proj.") for key in shapes)
    if channels != 16 and not has_audio:
        kind = {36: "Wan image to video", 48: "Wan 2.2 5B"}.get(channels, "another model of the Wan family")
        raise AnotherModel(
            f"{name} is {kind}, not SkyReels-V3 (it takes {channels} input channels and has no audio layers): {HERE}.",
            OtherModel(kind, ()),
        )


def refuse_unreadable(keys: Iterable[str], name: str) -> None:
    """Raise InputError if the weights are in a format of another program."""
    kind = foreign_format(keys)
    if kind:
        raise InputError(f"{name} is quantised by {kind}, which is not read here: use the bf16, fp8 or GGUF file.")


def what_it_is(keys: Iterable[str], name: str) -> InputError:
    """The error for a file that has no SkyReels-V3 transformer at all: what it is, or how its tensors are called.

    Raises InputError where it may have one, in a format of another program.
    """
    keys = list(keys)
    other = _first(OTHERS, keys)
    if other is PART_OF_WAN:  # with its embeddings in such a format too
        refuse_unreadable(keys, name)
    if other:
        return AnotherModel(f"{name} is {other.kind}, not a SkyReels-V3 transformer: {other.advice}.", other)
    first = ", ".join(ascii(key)[1:-1][:60] for key in keys[:3])
    return InputError(
        f"{name} is not a SkyReels-V3 transformer "
        f"({f'its tensors are called {first} ...' if keys else 'it is empty'}): "
        "choose an R2V, V2V or A2V file."
    )
