"""Goldens of what needs no network: encoders, the VAE, sound, schedules, pictures and plans."""

import importlib
import math
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from pack.dev.setup.environment import comfyui_path
from pack.skyreels_v3.images.colour import ColourMatch
from pack.skyreels_v3.images.convert import to_rgb8
from pack.skyreels_v3.images.resize import cover_crop, letterbox
from pack.skyreels_v3.images.sizes import bucket_size
from pack.skyreels_v3.jobs.avatar.plan import plan_windows
from pack.skyreels_v3.jobs.extension.plan import continue_rolls, cut_roll
from pack.skyreels_v3.recipes import RECIPES, Job, latent_frames
from pack.skyreels_v3.sampling.schedule import euler_sigmas, integer_timestep, timesteps_of, unipc_sigmas
from pack.skyreels_v3.sampling.solver import unipc
from pack.skyreels_v3.speech.encoder import SpeechEncoder, speech_features
from pack.skyreels_v3.speech.loudness import integrated_loudness, loudness_gain
from pack.skyreels_v3.speech.recording import SAMPLE_RATE
from pack.skyreels_v3.vae import causal as causal_vae
from pack.tests.goldens.checks import EXACT, LOUDNESS, NETWORK, SIGMA, SOLVED, Check, kind
from pack.tests.support.golden import Golden, normal, pixels, read, relative_error


def comfy(name: str):
    """A module of ComfyUI, on the CPU, without its server and its nodes."""
    host = str(comfyui_path())
    if host not in sys.path:
        sys.path.insert(0, host)
    if "comfy.model_management" not in sys.modules:  # which looks for a GPU at once
        importlib.import_module("comfy.cli_args").args.cpu = True
    return importlib.import_module(f"comfy.{name}")


@kind("wav2vec2")
def wav2vec2(golden: Golden) -> Iterable[Check]:
    """Speech features through the modules that ComfyUI loads, at the golden's sizes."""
    waveform, weights = golden.tensors["waveform"], golden.weights()
    config, width, layers = golden.config, golden.config["hidden_size"], golden.config["num_hidden_layers"]
    parts, options = comfy("audio_encoders.wav2vec2"), {"operations": comfy("ops").manual_cast}
    model = parts.Wav2Vec2Model(
        width, num_heads=config["num_attention_heads"], num_layers=layers, conv_norm=False, conv_bias=False,
        do_normalize=False, do_stable_layer_norm=False, **options,
    )  # fmt: skip
    # The sizes that ComfyUI knows no argument for.
    convolved = config["conv_dim"][0]
    model.feature_extractor = parts.ConvFeatureEncoder(convolved, conv_norm=False, **options)
    model.feature_projection = parts.FeatureProjection(convolved, width, **options)
    model.encoder.pos_conv_embed = parts.PositionalConvEmbedding(
        width, config["num_conv_pos_embeddings"], config["num_conv_pos_embedding_groups"]
    )
    for layer in model.encoder.layers:
        layer.feed_forward = parts.FeedForward(width, config["intermediate_size"] / width, **options)
    model.load_state_dict(weights)
    encoder = SpeechEncoder.of(model.eval())
    features = torch.stack(list(speech_features(waveform, encoder)), dim=1)
    yield Check("features", relative_error(features, golden.tensors["features"]), NETWORK)


@kind("loudness")
def loudness(golden: Golden) -> Iterable[Check]:
    """Loudness of the wav2vec2 golden's waveform, three times over, and the factor to -23 LUFS."""
    waveform = read(Path(__file__).parent / "wav2vec2.safetensors").tensors["waveform"].repeat(3)
    pairs = {
        "integrated_loudness": integrated_loudness(waveform, SAMPLE_RATE),
        "gain": loudness_gain(waveform, SAMPLE_RATE),
    }
    for name, got in pairs.items():
        yield Check(name, abs(got / golden.data[name] - 1), LOUDNESS)


@kind("vae")
def vae(golden: Golden) -> Iterable[Check]:
    """The host's Wan VAE at the golden's width, between pixels and model space: by itself, and as the pack runs it."""
    wanted = golden.tensors
    model = comfy("ldm.wan.vae").WanVAE(**golden.config)
    model.load_state_dict(golden.weights())
    space = comfy("latent_formats").Wan21()
    _, _, latents, height, width = wanted["latents"].shape
    clip = pixels(golden.stem, 4 * (latents - 1) + 1, 8 * height, 8 * width).float() / 127.5 - 1
    clip = clip.permute(3, 0, 1, 2)[None]
    yield Check("latents", relative_error(space.process_in(model.encode(clip)), wanted["latents"]), NETWORK)
    pieces = causal_vae.encode(model, lambda start, stop: clip[:, :, start:stop], clip.shape[2])
    encoded = space.process_in(torch.cat(list(pieces), dim=2))
    yield Check("latents, the pack's way", relative_error(encoded, wanted["latents"]), NETWORK)
    _, _, frames, height, width = wanted["decoded"].shape
    noise = normal(f"{golden.stem}/in/latents", (1, 16, latent_frames(frames), height // 8, width // 8))
    decoded = model.decode(space.process_out(noise)).clamp(-1, 1)
    yield Check("decoded", relative_error(decoded, wanted["decoded"]), NETWORK)
    decoded = torch.cat(list(causal_vae.decode(model, space.process_out(noise))), dim=2).clamp(-1, 1)
    yield Check("decoded, the pack's way", relative_error(decoded, wanted["decoded"]), NETWORK)


def frame_checks(got: torch.Tensor, wanted: torch.Tensor) -> Iterable[Check]:
    """Frames: at most one step of 255 at any pixel, and at most 0.1 % of the pixels off."""
    yield Check("largest step of 255", largest(got, wanted), 1.0)
    off = (got != wanted).float().mean().item() if got.shape == wanted.shape else math.inf
    yield Check("share of pixels off", off, 1e-3)


def largest(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest distance between two tensors of one shape; infinity for two shapes."""
    if got.shape != wanted.shape:
        return math.inf
    return (got.double() - wanted.double()).abs().max().item()


@kind("schedules")
def schedules(golden: Golden) -> Iterable[Check]:
    """Sigmas and timesteps of `<job>_<steps>`, and an equation solved with them."""
    start = normal("solver/x", (4, 4))
    for name, entry in golden.data.items():
        if not isinstance(entry, dict):
            continue
        job, _, steps = name.rpartition("_")
        recipe = RECIPES[Job(job)]
        shift = entry.get("shift", recipe.shift)
        euler = recipe.solver == "euler"
        sigmas = euler_sigmas(int(steps), shift) if euler else unipc_sigmas(int(steps), shift, Job(job))
        timesteps = timesteps_of(sigmas, recipe.integer_timesteps)[: len(entry["timesteps"])]
        yield Check(f"{name} timesteps", largest(timesteps, torch.tensor(entry["timesteps"])), EXACT)
        if "sigmas" in entry:
            yield Check(f"{name} sigmas", largest(sigmas, torch.tensor(entry["sigmas"])), SIGMA)
        if "solved" in entry:
            solved = unipc(toy_denoise, start, sigmas)
            yield Check(f"{name} solved", relative_error(solved, torch.tensor(entry["solved"])), SOLVED)


def toy_denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Clean x for the velocity 0.7 x + 0.2 sin(3 x) - 0.1 t / 1000 at the whole timestep t."""
    return x - sigma * (0.7 * x + 0.2 * torch.sin(3 * x) - 0.1 * integer_timestep(sigma) / 1000)


@kind("sizes")
def sizes(golden: Golden) -> Iterable[Check]:
    """Which size each image gives, [height, width] under `<resolution>` or `avatar_<resolution>`."""
    for row in golden.data["rows"]:
        size = row["width"], row["height"]
        for name, wanted in row.items():
            if name in ("width", "height"):
                continue
            job = Job.AVATAR if name.startswith("avatar_") else Job.REFERENCE
            width, height = bucket_size(*size, name.removeprefix("avatar_"), job)
            yield Check(f"{size} {name}", float([height, width] != wanted), EXACT)


@kind("images")
def images(golden: Golden) -> Iterable[Check]:
    """`letterbox_<image>_<height>x<width>` and `crop_<image>_<height>x<width>`."""
    for name, wanted in golden.tensors.items():
        match = re.fullmatch(r"(letterbox|crop)_(.+)_(\d+)x(\d+)", name)
        if match is None:
            continue
        operation, source, height, width = match.groups()
        resize = letterbox if operation == "letterbox" else cover_crop
        got = torch.from_numpy(resize(to_rgb8(golden.tensors[source]), int(width), int(height)).copy())
        yield Check(name, largest(got, wanted), EXACT)


COLOUR_STRENGTHS = {"full": 1.0, "half": 0.5}


@kind("colour_match")
def colour_match(golden: Golden) -> Iterable[Check]:
    """`full` and `half` of the match of one clip to one frame."""
    for name, strength in COLOUR_STRENGTHS.items():
        wanted = golden.tensors[name]
        source = (normal("colour/source", wanted.shape) * 0.4).clamp(-1, 1)
        reference = (normal("colour/reference", (1, 3, 1, *wanted.shape[-2:])) * 0.5 + 0.1).clamp(-1, 1)
        yield Check(name, relative_error(ColourMatch(reference, strength)(source), wanted), NETWORK)


def single_shot_plan(seconds: int) -> list[dict[str, int]]:
    return [
        {
            "latent_frames": roll.latent_frames,
            "prefix_latent_frames": latent_frames(roll.prefix_frames),
            "new_frames": roll.new_frames,
        }
        for roll in continue_rolls(seconds, official=True)
    ]


def shot_switching_plan(seconds: int) -> dict[str, int]:
    roll = cut_roll(seconds, official=True)
    return {
        "condition_frames": roll.prefix_frames,
        "frames": roll.new_frames,
        "latent_frames": roll.latent_frames,
        "prefix_latent_frames": latent_frames(roll.prefix_frames),
    }


def avatar_plan(frames: int) -> dict:
    plan = plan_windows(frames, limit=5000)
    return {
        "video_frames": plan.frames,
        "key_frames": [window.key_frame for window in plan.windows],
        "segments": [[window.start, window.stop] for window in plan.windows or [plan.key_pass]],
        "audio_padded_to": plan.padded,
        "single_clip": not plan.windows,
    }


PLANS: dict[str, Callable] = {
    "single_shot": single_shot_plan,
    "shot_switching": shot_switching_plan,
    "avatar": avatar_plan,
}


@kind("plans")
def plans(golden: Golden) -> Iterable[Check]:
    """Frames of every duration, under the name of a job. Jobs without a plan here are named and not counted."""
    for job, rows in golden.data.items():
        if job not in PLANS:
            print(f"{golden.stem}: {job} is not checked, known are {', '.join(PLANS)}", file=sys.stderr)
            continue
        for length, wanted in rows.items():
            yield Check(f"{job} {length}", float(PLANS[job](int(length)) != wanted), EXACT)
