"""`python tests/goldens.py FILE...`: runs goldens, wherever they lie, and says how far off each is.

What a file checks is told by its name, which contains one of the kinds registered in KINDS (the longest counts).
"""

import argparse
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from pack.distributed.ranks import ALONE, Ranks
from pack.model_loaders.architecture.key_maps import find_dialect
from pack.skyreels_v3.jobs.avatar.condition import silent
from pack.skyreels_v3.jobs.avatar.passes import AvatarPasses, Pass, Portrait
from pack.skyreels_v3.jobs.avatar.passes import Settings as AvatarSettings
from pack.skyreels_v3.jobs.avatar.passes import Tools as AvatarTools
from pack.skyreels_v3.jobs.avatar.pinned import pinned_euler
from pack.skyreels_v3.jobs.avatar.plan import Timing, plan_avatar
from pack.skyreels_v3.jobs.extension.plan import RollLength, RollPlan, continue_rolls, cut_roll
from pack.skyreels_v3.jobs.extension.roll import Settings, Tail, Tools, run_roll
from pack.skyreels_v3.jobs.extension.script import CONTINUE, CUT
from pack.skyreels_v3.jobs.reference import encode_references, plan_reference
from pack.skyreels_v3.model.params import AudioParams, TransformerParams
from pack.skyreels_v3.model.sequence import avatar_segments, extension_segments, reference_segments, shot_segments
from pack.skyreels_v3.model.speaker_map import PositionMap
from pack.skyreels_v3.model.transformer import Runtime, SkyReelsTransformer
from pack.skyreels_v3.recipes import Job
from pack.skyreels_v3.sampling.guidance import Branch, avatar_branches, reference_branches
from pack.skyreels_v3.sampling.schedule import euler_sigmas, integer_timestep, unipc_sigmas
from pack.skyreels_v3.sampling.solver import unipc
from pack.skyreels_v3.speech.features import SpeechFeatures, around_frames, audio_windows
from pack.tests.goldens.checks import EXACT, KINDS, NETWORK, SIGMA, Check, kind, kind_of
from pack.tests.goldens.pieces import frame_checks, largest
from pack.tests.support.golden import Golden, read, relative_error
from pack.tests.support.guided import guided
from pack.tests.support.processes import Processes


def run(path: str | Path) -> list[Check]:
    """Runs one golden file. Raises ValueError or OSError where it cannot be read or its kind is unknown."""
    name = kind_of(Path(path).stem)
    if name is None:
        raise ValueError(f"unknown kind; known are {', '.join(sorted(KINDS))}")
    with torch.inference_mode():
        checks = list(KINDS[name](read(path)))
    if not checks:
        raise ValueError("nothing to check in this file")
    return checks


_ranks = ALONE  # that share the sequences of `network`: set where a process runs goldens together with others


def network(golden: Golden) -> SkyReelsTransformer:
    """The transformer of a golden with its weights, sized by the shapes of the weights."""
    weights = golden.weights()
    dialect, prefix = find_dialect(weights)
    names = dialect.rename(name.removeprefix(prefix) for name in weights)
    weights = {names[name.removeprefix(prefix)]: weight for name, weight in weights.items()}
    model = SkyReelsTransformer(params_of(golden, weights), device="meta")
    model.load_state_dict(weights, assign=True)
    model.forward = partial(model.forward, runtime=Runtime(ranks=_ranks))
    return model.eval()


def params_of(golden: Golden, weights: dict[str, torch.Tensor]) -> TransformerParams:
    """Sizes from the weights under Wan names; heads and eps, which no shape tells, from the config."""
    dim, in_dim, *patch = weights["patch_embedding.weight"].shape
    config, audio, image_dim = golden.config, None, None
    if "img_emb.proj.0.weight" in weights:
        image_dim = weights["img_emb.proj.0.weight"].shape[0]
    if "audio_proj.norm.weight" in weights:
        layers, width = golden.input_shapes["audio_features"][-2:]
        audio_dim = weights["audio_proj.norm.weight"].shape[0]
        audio = AudioParams(
            window=weights["audio_proj.proj1.weight"].shape[1] // (layers * width),
            layers=layers,
            width=width,
            hidden=weights["audio_proj.proj1.weight"].shape[0],
            tokens=weights["audio_proj.proj3.weight"].shape[0] // audio_dim,
            dim=audio_dim,
        )
    return TransformerParams(
        dim=dim,
        ffn_dim=weights["blocks.0.ffn.0.weight"].shape[0],
        num_heads=config.get("num_heads") or config["num_attention_heads"],
        num_layers=1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks.")),
        in_dim=in_dim,
        out_dim=weights["head.head.weight"].shape[0] // math.prod(patch),
        text_dim=weights["text_embedding.0.weight"].shape[1],
        freq_dim=weights["time_embedding.0.weight"].shape[1],
        patch_size=tuple(patch),
        eps=config.get("eps", 1e-6),
        image_dim=image_dim,
        audio=audio,
    )


def timestep_of(golden: Golden) -> torch.Tensor:
    return torch.tensor([golden.note["timestep"]], dtype=torch.float32)


@kind("dit_reference")
def dit_reference(golden: Golden) -> Iterable[Check]:
    """One forward with four reference slots after the video."""
    segments = reference_segments(golden.input("latents"), golden.input("reference_latents"))
    velocity = network(golden)(segments, timestep_of(golden), golden.input("text"))
    yield Check("velocity", relative_error(velocity, golden.tensors["velocity"]), NETWORK)


@kind("dit_extension")
def dit_extension(golden: Golden) -> Iterable[Check]:
    """One forward with a clean prefix before the video."""
    segments = extension_segments(golden.input("latents"), golden.input("prefix_latents"))
    velocity = network(golden)(segments, timestep_of(golden), golden.input("text"))
    yield Check("velocity", relative_error(velocity, golden.tensors["velocity"]), NETWORK)


@kind("dit_shot")
def dit_shot(golden: Golden) -> Iterable[Check]:
    """One forward with a clean prefix far away in time."""
    segments = shot_segments(golden.input("latents"), golden.input("prefix_latents"))
    velocity = network(golden)(segments, timestep_of(golden), golden.input("text"))
    yield Check("velocity", relative_error(velocity, golden.tensors["velocity"]), NETWORK)


@kind("dit_avatar")
def dit_avatar(golden: Golden) -> Iterable[Check]:
    """One forward with a portrait, CLIP tokens and the speech of one or two people."""
    latents, features = golden.input("latents"), golden.input("audio_features")
    model, frames = network(golden), features.shape[1]
    output = model(
        avatar_segments(latents, golden.input("y")),
        timestep_of(golden),
        golden.input("text"),
        image=golden.input("clip"),
        audio=audio_windows(features, around_frames(0, frames, frames, model.params.audio.window)),
        speaker_masks=thirds(*latents.shape[-2:]) if golden.note["people"] > 1 else None,
        position_map=PositionMap.OFFICIAL,
    )
    yield Check("model_output", relative_error(output, golden.tensors["model_output"]), NETWORK)


def thirds(height: int, width: int) -> torch.Tensor:
    """Masks [3, height, width] of a person on the left, one on the right, and the background between them."""
    masks = torch.zeros(3, height, width)
    left, right = width // 3, 2 * width // 3
    masks[0, :, :left] = 1
    masks[1, :, right:] = 1
    masks[2, :, left:right] = 1
    return masks


@kind("pipeline_reference")
def pipeline_reference(golden: Golden) -> Iterable[Check]:
    """The whole reference job up to the latents, with or without guidance."""
    note, wanted = golden.note, golden.tensors["latents"]
    images = list(golden.pixels())
    _, _, latent_frames, height, width = wanted.shape
    plan = plan_reference(
        [(image.shape[1], image.shape[0]) for image in images],
        width=8 * width,
        height=8 * height,
        frames=4 * (latent_frames - 1) + 1,
    )
    references = encode_references(images, plan, golden.vae.encode)
    sigmas = unipc_sigmas(note["steps"], note["shift"], Job.REFERENCE)
    branches = reference_branches(note["guidance_text"], note["guidance_image"])
    prompt, negative = golden.input("text"), golden.input("negative_text")
    model = network(golden)

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        def predict(branch: Branch) -> torch.Tensor:
            slots = references if branch.uses_references else torch.zeros_like(references)
            text = prompt if branch.uses_prompt else negative
            return x - sigma * model(reference_segments(x, slots), integer_timestep(sigma)[None], text)

        return guided(predict, branches)

    noise = torch.randn(plan.latent_shape, generator=torch.Generator().manual_seed(note["seed"]))
    yield Check("latents", relative_error(unipc(denoise, noise, sigmas), wanted), NETWORK)
    yield Check("sigmas", largest(sigmas, golden.tensors["sigmas"]), SIGMA)
    yield Check("timesteps", largest(integer_timestep(sigmas[:-1]), golden.tensors["timesteps"]), EXACT)


def extension(golden: Golden, shot: str, lengths: Sequence[RollLength], segments: Callable) -> Iterable[Check]:
    """The whole extension loop in the official way: rolls, 8-bit hand-over, stitching."""
    note, model, text = golden.note, network(golden), golden.input("text")
    sigmas = unipc_sigmas(note["steps"], note["shift"], Job.EXTENSION)

    def denoise(roll: RollPlan, prefix: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        def clean(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            return x - sigma * model(segments(x, prefix), integer_timestep(sigma)[None], text)

        return unipc(clean, noise, sigmas)

    tools = Tools(golden.vae.encode, golden.vae.pieces, denoise)
    settings = Settings(seed=note["seed"], official=True)
    tail, made = Tail.of_source(golden.pixels()[-note["condition_frames"] :]), []
    for part, length in enumerate(lengths, start=1):
        roll = RollPlan(0, 1, shot, "", part, len(lengths), *length)
        tail = run_roll(roll, tail, tools, settings, made.append)
    yield from frame_checks(torch.cat(made), golden.tensors["frames_u8"])


@kind("pipeline_extension")
def pipeline_extension(golden: Golden) -> Iterable[Check]:
    """Rolls that continue a shot."""
    lengths = continue_rolls(golden.note["duration_seconds"], official=True)
    yield from extension(golden, CONTINUE, lengths, extension_segments)


@kind("pipeline_shot")
def pipeline_shot(golden: Golden) -> Iterable[Check]:
    """A cut to a new shot."""
    lengths = [cut_roll(golden.note["duration_seconds"], official=True)]
    yield from extension(golden, CUT, lengths, shot_segments)


@kind("pipeline_avatar")
def pipeline_avatar(golden: Golden) -> Iterable[Check]:
    """The whole avatar job: key-frame pass, windows, motion frames held, colours matched, stitching."""
    note, model = golden.note, network(golden)
    sigmas = euler_sigmas(note["steps"], note["shift"])
    branches = avatar_branches(note["text_guidance"], note["audio_guidance"])
    prompt, connection, negative = (golden.input(f"{name}text") for name in ("", "connection_", "negative_"))

    def denoise(run: Pass, noise: torch.Tensor) -> torch.Tensor:
        def clean(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            def predict(branch: Branch) -> torch.Tensor:
                own = prompt if run.plan.is_key_pass else connection
                text = own if branch.uses_prompt else negative
                speech = run.speech if branch.uses_references else silent(run.speech)
                segments = avatar_segments(x, run.condition)
                return x - sigma * model(segments, 1000 * sigma[None], text, image=run.tokens, audio=speech)

            return guided(predict, branches)

        return pinned_euler(clean, noise, sigmas, run.pin)

    yield from avatar_frames(golden, denoise)


def avatar_frames(golden: Golden, denoise: Callable[[Pass, torch.Tensor], torch.Tensor]) -> Iterable[Check]:
    """The frames of a golden avatar job, whose windows `denoise` samples, see avatar_job.Tools."""
    note = golden.note
    timing = Timing(note["frame_num"], note["motion_frames"], note["drop_frames"])
    _, height, width, _ = golden.input_shapes["pixels"]
    features, clip = SpeechFeatures.of(golden.input("audio_features")), golden.input("clip")
    plan = plan_avatar((width, height), features.frames, width=width, height=height, timing=timing, steps=note["steps"])
    tools = AvatarTools(golden.vae.encode, golden.vae.pieces, lambda pixels: clip, denoise)
    settings = AvatarSettings(seed=note["seed"], official=True)
    run = AvatarPasses(plan, Portrait.of(golden.pixels(), plan, tools), features, tools, settings)
    made = []
    if plan.single:
        run.single(made.append)
    else:
        frames, start = run.key_pass()
        for window in plan.windows:
            start = run.window(window, start, frames[window.key_frame], made.append)
    yield from frame_checks(torch.cat(made), golden.tensors["frames_u8"])


def lines(ranks: Ranks, paths: Sequence[str]) -> list[tuple[str, bool]]:
    """One line a file and whether it passed. ranks: the processes that share every sequence of a network."""
    global _ranks
    _ranks, found = ranks, []
    for path in paths:
        name = Path(path).name
        try:
            checks = run(path)
        except Exception as error:  # one bad file must not hide the others
            found.append((f"{name}  -  FAIL  {type(error).__name__}: {error}", False))
            continue
        bad = [check for check in checks if not check.passed]
        worst = max(check.error for check in checks)
        reason = "".join(f"  {check.what}: {check.error:.3g} > {check.tolerance:g}" for check in bad[:3])
        found.append((f"{name}  {worst:.2e}  {'FAIL' if bad else 'ok'}{reason}", not bad))
    _ranks = ALONE
    return found


def main(arguments: list[str]) -> int:
    """Prints one line a file; 0 where all passed, 1 where one did not, 2 where none was given."""
    parser = argparse.ArgumentParser(prog="python tests/goldens.py")
    parser.add_argument("--ranks", type=int, default=1, help="processes that share the sequences of networks (gloo)")
    parser.add_argument("paths", nargs="*", metavar="FILE")
    given = parser.parse_args(arguments)
    if not given.paths or given.ranks < 1:
        parser.print_usage(sys.stderr)
        return 2
    if given.ranks == 1:
        found = lines(ALONE, given.paths)
    else:
        processes = Processes(given.ranks)
        each = [processes.call(lines, [path]) for path in given.paths]
        processes.close()
        found = [
            own if all(other == [own] for other in others) else (f"{own[0]}  FAIL  the processes differ", False)
            for [own], *others in each
        ]
    for line, _ in found:
        print(line)
    return int(not all(passed for _, passed in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
