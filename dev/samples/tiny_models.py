"""Tiny checkpoints with the real names and layouts, for tests and the demo. The same call writes the same weights.

    write_transformer(path, job)    the four SkyReels-V3 transformers, in one file or in shards
    write_vae(path)                 a narrow Wan 2.1 VAE that the stock VAELoader opens: see tiny_vae.py
    write_text_encoder(path)        a shallow umt5 for the stock CLIPLoader (type wan), beside the pack small_encoders
    write_clip_vision(path)         a shallow ViT-H for the stock CLIPVisionLoader, beside the same pack
    write_audio_encoder(path)       wav2vec2-chinese-base for the stock AudioEncoderLoader, at its real size

`python dev/samples/tiny_models.py FOLDER` writes one of each.
"""

import functools
import io
import json
import sys
import zlib
from pathlib import Path

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))  # for `pack`
from pack.dev.samples.tiny_vae import write_vae
from pack.model_loaders.architecture.key_maps import DIFFUSERS
from pack.model_loaders.architecture.params import expected_shapes
from pack.skyreels_v3.model.params import AudioParams, TransformerParams
from pack.skyreels_v3.recipes import Job

__all__ = [
    "TINY",
    "TINY_AVATAR",
    "transformer_weights",
    "write_audio_encoder",
    "write_clip_vision",
    "write_text_encoder",
    "write_transformer",
    "write_vae",
]

TINY = TransformerParams(dim=128, ffn_dim=256, num_heads=1, num_layers=2)
TINY_AVATAR = TransformerParams(
    dim=128,
    ffn_dim=256,
    num_heads=1,
    num_layers=2,
    in_dim=36,
    image_dim=1280,
    audio=AudioParams(hidden=32, dim=64),
)


def random_weight(key: str, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """A float32 weight as a trained one is scaled, from its name alone.

    Matrices and kernels are divided by the square root of their fan-in; vectors are 1 (weights of norms) or 0 plus a
    tenth of a normal number.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{key}".encode()))
    weight = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return weight / torch.tensor(shape[1:]).prod().sqrt()
    return weight / 10 + (1 if key.endswith("weight") else 0)


def transformer_weights(params: TransformerParams, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random weights of a transformer in float32: Wan name -> tensor. Copy a tensor before changing it."""
    return dict(_weights(params, seed))


@functools.lru_cache(maxsize=8)
def _weights(params: TransformerParams, seed: int) -> dict[str, torch.Tensor]:
    return {key: random_weight(key, shape, seed) for key, shape in expected_shapes(params).items()}


def write_transformer(
    path: Path,
    job: Job,
    dialect: str = "wan",
    dtype: torch.dtype = torch.bfloat16,
    prefix: str = "",
    shards: int = 1,
    params: TransformerParams | None = None,
    index: bool = True,
    metadata: dict[str, str] | None = None,
    seed: int = 0,
) -> Path:
    """Write a transformer for a job and return the path.

    path: a file if it ends in .safetensors, else a folder as Skywork publishes it, with config.json and, of several
    shards, an index (unless index is False).  dialect: "wan" or "diffusers".  prefix: before every name.
    """
    path = Path(path)
    params = params or (TINY_AVATAR if job is Job.AVATAR else TINY)
    weights = {key: weight.to(dtype) for key, weight in transformer_weights(params, seed).items()}
    if dialect == DIFFUSERS.name:
        weights = {new: weights[old] for old, new in DIFFUSERS.inverted().rename(weights).items()}
    weights = {prefix + key: weight for key, weight in weights.items()}
    if path.suffix == ".safetensors":
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(weights, path, metadata)
        return path
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(_config(params, dialect)), encoding="utf-8")
    weight_map = {}
    for number in range(1, shards + 1):
        name = f"diffusion_pytorch_model-{number:05}-of-{shards:05}" if shards > 1 else "diffusion_pytorch_model"
        # every n-th tensor: both the blocks and the layers around them are spread over the shards
        part = {key: weights[key] for key in sorted(weights)[number - 1 :: shards]}
        save_file(part, path / f"{name}.safetensors", metadata)
        weight_map.update(dict.fromkeys(part, f"{name}.safetensors"))
    if shards > 1 and index:
        content = {
            "metadata": {"total_size": sum(weight.nbytes for weight in weights.values())},
            "weight_map": weight_map,
        }
        (path / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(content), encoding="utf-8")
    return path


def _config(params: TransformerParams, dialect: str) -> dict:
    """The entries of config.json that say something about the network."""
    common = {
        "ffn_dim": params.ffn_dim,
        "freq_dim": params.freq_dim,
        "num_layers": params.num_layers,
        "eps": params.eps,
    }
    if dialect == DIFFUSERS.name:
        heads = {"num_attention_heads": params.num_heads, "attention_head_dim": params.head_dim}
        return {**common, **heads, "in_channels": params.in_dim, "out_channels": params.out_dim}
    sizes = {"dim": params.dim, "num_heads": params.num_heads, "in_dim": params.in_dim, "out_dim": params.out_dim}
    return {**common, **sizes, "model_type": "i2v" if params.image_dim else "t2v"}


TEXT_WIDTH = 4096  # of umt5-xxl
TEXT_BUCKETS = 32  # of relative positions

# Enough English for a sentencepiece model whose pieces are whole words of prompts; other text falls back to bytes.
WORDS = """
a an the and or but with without into onto over under behind beside between through across along around near
far left right up down front back inside outside toward away from to of in on at by for as is are was be being
been it its his her their our your my this that these those who which what when where while then than there
here not no one two three four five six seven eight nine ten hundred first second third last next same other
another each every person people man woman child girl boy friend couple crowd actor singer dancer doctor
teacher artist speaker face eye eyes hand hands head hair mouth lips smile voice body arm leg dress coat hat
shirt suit shoes glasses bag phone cat dog horse bird fish lion tiger bear rabbit fox astronaut robot dragon
car train bus truck bicycle bike boat ship plane rocket street road bridge city town village house room
kitchen office window door wall floor table chair bed stage studio park garden forest tree trees flower
flowers grass leaf leaves mountain hill river lake sea ocean beach wave waves sand stone rock snow ice rain
storm cloud clouds sky sun moon star stars light shadow fire smoke water wind night day morning evening sunset
sunrise summer winter spring autumn space planet world coffee cup tea bread fruit apple food glass bottle book
paper picture image video film movie scene shot camera lens focus close wide medium angle low high view frame
motion slow fast zoom pan tilt cut transition continue reference character subject background foreground style
realistic cinematic photo painting animation cartoon anime detail detailed sharp soft bright dark warm cold
red orange yellow green blue purple pink black white grey brown gold silver colour color walk walks walking
run runs running sit sits sitting stand stands standing talk talks talking speak speaks speaking sing sings
singing dance dances dancing jump fly flying swim drive driving ride riding turn turns turning look looks
looking hold holds holding open opens close closes move moves moving wear wears wearing play plays playing
drink eat smile smiles smiling laugh laughing cry happy sad calm angry beautiful young old small large big
little long short new clean empty full quiet loud strong gentle slowly quickly softly again always never still
very more most less quality best worst blurry static distorted overexposed subtitles text watermark extra
fingers deformed ugly
""".split()


def write_text_encoder(
    path: Path, layers: int = 2, d_ff: int = 8, heads: int = 1, head_dim: int = 8, seed: int = 0
) -> Path:
    """Write a umt5 in bf16 (6 MB) with the real text width and return the path.

    The stock CLIPLoader opens it with type wan where the pack `small_encoders` is in custom_nodes: 512 x 4096 features.
    All 24 real layers would take some seconds a prompt at this width.
    """
    path = Path(path)
    tokenizer = _sentencepiece_model()
    inner = heads * head_dim
    shapes = {"shared.weight": (_vocabulary(tokenizer), TEXT_WIDTH), "encoder.final_layer_norm.weight": (TEXT_WIDTH,)}
    for layer in range(layers):
        attention, feed = f"encoder.block.{layer}.layer.0", f"encoder.block.{layer}.layer.1"
        shapes |= {f"{attention}.SelfAttention.{name}.weight": (inner, TEXT_WIDTH) for name in "qkv"}
        shapes[f"{attention}.SelfAttention.o.weight"] = (TEXT_WIDTH, inner)
        shapes[f"{attention}.SelfAttention.relative_attention_bias.weight"] = (TEXT_BUCKETS, heads)
        shapes |= {f"{feed}.DenseReluDense.{name}.weight": (d_ff, TEXT_WIDTH) for name in ("wi_0", "wi_1")}
        shapes[f"{feed}.DenseReluDense.wo.weight"] = (TEXT_WIDTH, d_ff)
        shapes[f"{attention}.layer_norm.weight"] = shapes[f"{feed}.layer_norm.weight"] = (TEXT_WIDTH,)
    weights = {key: random_weight(key, shape, seed).bfloat16() for key, shape in shapes.items()}
    # Embeddings are looked up, not summed over: at unit scale words differ as much as the layers change them.
    weights["shared.weight"] *= TEXT_WIDTH**0.5
    weights["spiece_model"] = torch.frombuffer(bytearray(tokenizer), dtype=torch.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)
    return path


def _sentencepiece_model() -> bytes:
    import sentencepiece  # a test tool, not of the pack's requirements

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS),
        model_writer=model,
        vocab_size=700,
        hard_vocab_limit=False,
        byte_fallback=True,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def _vocabulary(tokenizer: bytes) -> int:
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_proto=tokenizer).get_piece_size()


IMAGE_WIDTH, IMAGE_SIZE, IMAGE_PATCH, IMAGE_PROJECTION = 1280, 224, 14, 1024  # of ViT-H
IMAGE_LAYERS, IMAGE_INNER = 2, 32


def write_clip_vision(path: Path, seed: int = 0) -> Path:
    """Write a ViT-H in fp16 (31 MB) with the real width and tokens, but 2 layers, and return the path.

    The stock CLIPVisionLoader opens it where the pack `small_encoders` is in custom_nodes: 257 x 1280.
    """
    path = Path(path)
    width, inner, patch, tokens = IMAGE_WIDTH, IMAGE_INNER, IMAGE_PATCH, (IMAGE_SIZE // IMAGE_PATCH) ** 2 + 1
    shapes = {
        "vision_model.embeddings.class_embedding": (width,),
        "vision_model.embeddings.patch_embedding.weight": (width, 3, patch, patch),
        "vision_model.embeddings.position_embedding.weight": (tokens, width),
        "visual_projection.weight": (IMAGE_PROJECTION, width),
        **_affine("vision_model.pre_layrnorm", width),
        **_affine("vision_model.post_layernorm", width),
    }
    for layer in range(IMAGE_LAYERS):
        block = f"vision_model.encoder.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _affine(f"{block}.self_attn.{name}", width, width)
        shapes |= _affine(f"{block}.mlp.fc1", inner, width) | _affine(f"{block}.mlp.fc2", width, inner)
        shapes |= _affine(f"{block}.layer_norm1", width) | _affine(f"{block}.layer_norm2", width)
    weights = {key: random_weight(key, shape, seed).half() for key, shape in shapes.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, path)
    return path


AUDIO_WIDTH, AUDIO_CONV, AUDIO_LAYERS = 768, 512, 12  # of wav2vec2-base: ComfyUI knows no other sizes
AUDIO_KERNELS = (10, 3, 3, 3, 3, 2, 2)  # of the convolutions
AUDIO_PLACES, AUDIO_GROUPS = 128, 16  # of the convolution that tells positions


def write_audio_encoder(path: Path, seed: int = 0) -> Path:
    """Write a wav2vec2-chinese-base in fp16 (190 MB) with its real names and sizes and return the path.

    The stock AudioEncoderLoader opens it.
    """
    path = Path(path)
    width, conv = AUDIO_WIDTH, AUDIO_CONV
    shapes = {"masked_spec_embed": (width,)}
    for index, kernel in enumerate(AUDIO_KERNELS):
        shapes[f"feature_extractor.conv_layers.{index}.conv.weight"] = (conv, conv if index else 1, kernel)
    shapes |= _affine("feature_extractor.conv_layers.0.layer_norm", conv)
    shapes |= _affine("feature_projection.layer_norm", conv) | _affine("feature_projection.projection", width, conv)
    places = "encoder.pos_conv_embed.conv"
    shapes[f"{places}.bias"] = (width,)
    shapes[f"{places}.parametrizations.weight.original1"] = (width, width // AUDIO_GROUPS, AUDIO_PLACES)
    shapes |= _affine("encoder.layer_norm", width)
    for layer in range(AUDIO_LAYERS):
        block = f"encoder.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _affine(f"{block}.attention.{name}", width, width)
        shapes |= _affine(f"{block}.feed_forward.intermediate_dense", 4 * width, width)
        shapes |= _affine(f"{block}.feed_forward.output_dense", width, 4 * width)
        shapes |= _affine(f"{block}.layer_norm", width) | _affine(f"{block}.final_layer_norm", width)
    weights = {key: random_weight(key, shape, seed) for key, shape in shapes.items()}
    for index in range(1, len(AUDIO_KERNELS)):
        # GELU makes what comes in smaller, and adds a mean that would drown what changes with time.
        weight = weights[f"feature_extractor.conv_layers.{index}.conv.weight"]
        weight.sub_(weight.mean(dim=(1, 2), keepdim=True)).mul_(1.5)
    for layer in range(AUDIO_LAYERS):  # random attention says the same at every moment: it is only whispered
        weights[f"encoder.layers.{layer}.attention.out_proj.weight"] *= 0.3
        weights[f"encoder.layers.{layer}.feed_forward.output_dense.weight"] *= 0.3
    # The length of the vectors that weight_norm stretches: what comes in keeps its scale.
    length = (width / AUDIO_PLACES) ** 0.5
    weights[f"{places}.parametrizations.weight.original0"] = torch.full((1, 1, AUDIO_PLACES), length)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: weight.half() for key, weight in weights.items()}, path)
    return path


def _affine(name: str, out: int, *into: int) -> dict[str, tuple[int, ...]]:
    """The shapes of a linear layer, or, of one size, of a norm."""
    return {f"{name}.weight": (out, *into), f"{name}.bias": (out,)}


def main() -> None:
    folder = Path(sys.argv[1])
    models = folder / "diffusion_models"
    write_transformer(models / "SkyReels-V3-R2V-14B" / "transformer", Job.REFERENCE, "diffusers", shards=3)
    write_transformer(models / "SkyReels-V3-V2V-14B" / "transformer", Job.EXTENSION, shards=2)
    write_transformer(models / "SkyReels-V3-V2V-14B" / "shot_transformer", Job.SHOT, shards=2)
    write_transformer(models / "SkyReels-V3-A2V-19B", Job.AVATAR, shards=3)
    write_vae(folder / "vae" / "wan_2.1_vae.safetensors")
    write_text_encoder(folder / "text_encoders" / "umt5_xxl_tiny.safetensors")
    write_clip_vision(folder / "clip_vision" / "clip_vision_h.safetensors")
    write_audio_encoder(folder / "audio_encoders" / "wav2vec2-chinese-base_fp16.safetensors")


if __name__ == "__main__":
    main()
