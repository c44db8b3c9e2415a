"""Trains the nano models, everything in one command, on a processor in hours. A run that is stopped goes on.

    python training/train.py                       what is not there yet, to the finished checkpoints in nano/
    python training/train.py --only video avatar   some of the stages, in their order
    python training/train.py --steps 0.1           with a tenth of the steps, to try it

What it needs and makes on the way lies in training/runs.
"""

import argparse
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))  # for `pack`
from pack.skyreels_v3.model.transformer import SkyReelsTransformer
from pack.skyreels_v3.recipes import Job
from pack.training.data.clips import COUNTS, write_chunks
from pack.training.data.jobs import BATCHES, CHUNKS_OF, Library
from pack.training.data.latents import write_latents
from pack.training.methods import distil, flow, parallel
from pack.training.methods.optimiser import Optimiser
from pack.training.methods.own_past import with_own_past
from pack.training.methods.resumable import run
from pack.training.methods.train_autoencoder import train as train_autoencoder
from pack.training.models import image_encoder, network, shipped, speech_encoder, text_encoder
from pack.training.models.autoencoder import Autoencoder
from pack.training.models.export import write_autoencoder, write_transformer
from pack.training.models.nano import NANO, avatar_from, new_transformer, params_of

ALONE = ("encoders", "clips", "autoencoder", "export")  # stages of one process
RUNS = Path(__file__).parent / "runs"
RATE = 0.012
# What "video" is trained on. Going on is learnt soonest, who is shown in a picture last.
MIX = {Job.REFERENCE: 4, Job.EXTENSION: 2, Job.SHOT: 3}
# Of "video", of each job's own network, which begins from it, and of its distillation.
VIDEO_STEPS = 19500
STEPS = {Job.REFERENCE: 5600, Job.EXTENSION: 800, Job.SHOT: 700, Job.AVATAR: 2640}
DISTIL_STEPS = {Job.REFERENCE: 240, Job.EXTENSION: 80, Job.SHOT: 140}
# A network of a job that "video" knows begins at a lower rate. Share of the steps in which the rate falls.
OWN_RATE, DISTIL_RATE = RATE / 2, RATE / 6
COOL_DOWN = {"video": 0.2, "avatar": 0.6, "own": 1.0, "distilled": 0.6}
STAGES = (
    "encoders",
    "clips",
    "autoencoder",
    "latents",
    "video",
    *(job.value for job in Job),
    *(f"{job.value}-distilled" for job in distil.GUIDANCE),
    "export",
)


def say(line: str) -> None:
    print(line, flush=True)


def autoencoder(runs: Path) -> Autoencoder:
    model = Autoencoder()
    model.load_state_dict(torch.load(runs / "autoencoder.pt"))
    return model.eval()


def compiled() -> None:
    """Half the time of a step, where there is a compiler."""
    network._block = torch.compile(network._block, dynamic=True)
    network._avatar_block = torch.compile(network._avatar_block, dynamic=True)


def matched(
    runs: Path,
    name: str,
    model: SkyReelsTransformer,
    jobs: dict[Job, int],
    steps: int,
    rate: float = RATE,
    cool_down: float = COOL_DOWN["own"],
) -> None:
    """Flow matching. jobs: and how often. An extension that is the only one learns from its own past too."""
    library = Library(runs / "latents", {kind for job in jobs for kind in CHUNKS_OF[job]})

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        rng = random.Random(f"{name} {step} {parallel.rank()}")
        job = rng.choices(list(jobs), list(jobs.values()))[0]
        batch = BATCHES[job](library, rng)
        if jobs.keys() == {Job.EXTENSION}:
            batch = with_own_past(model, batch, rng)
        return flow.losses_of(model, batch, job, rng)

    file, optimiser = runs / f"{name}.pt", Optimiser(model, rate)
    run(file, model, optimiser, steps, loss_of, cool_down, say=lambda s: say(f"{name} {s}"))


def trained(runs: Path, name: str, model: SkyReelsTransformer) -> SkyReelsTransformer:
    """The model with the weights of a run."""
    model.load_state_dict(torch.load(runs / f"{name}.pt", weights_only=False)["model"])
    return model


def video(runs: Path, share: float) -> None:
    """One network for all jobs that are told by pictures and words."""
    matched(runs, "video", new_transformer(NANO), MIX, int(VIDEO_STEPS * share), cool_down=COOL_DOWN["video"])


def own(runs: Path, job: Job, share: float) -> None:
    """A job's own network, from what "video" has learnt."""
    model, steps = trained(runs, "video", new_transformer(NANO)), int(STEPS[job] * share)
    if job is Job.AVATAR:  # speech is new to it
        matched(runs, job.value, avatar_from(model), {job: 1}, steps, cool_down=COOL_DOWN["avatar"])
    else:
        matched(runs, job.value, model, {job: 1}, steps, OWN_RATE)


def distilled(runs: Path, job: Job, share: float) -> None:
    """A job's model: taught to do with the official steps and without guidance."""
    teacher = trained(runs, job.value, new_transformer(params_of(job))).requires_grad_(False).eval()
    student = trained(runs, job.value, new_transformer(params_of(job)))
    library, name = Library(runs / "latents", CHUNKS_OF[job]), f"{job.value}-distilled"

    def loss_of(step: int) -> dict[str, torch.Tensor]:
        rng = random.Random(f"{name} {step} {parallel.rank()}")
        batch = BATCHES[job](library, rng)
        if job is Job.EXTENSION:
            batch = with_own_past(student, batch, rng)
        return distil.losses_of(student, teacher, batch, job, rng)

    file, steps, optimiser = runs / f"{name}.pt", int(DISTIL_STEPS[job] * share), Optimiser(student, DISTIL_RATE)
    run(file, student, optimiser, steps, loss_of, COOL_DOWN["distilled"], say=lambda s: say(f"{name} {s}"))


def stages(runs: Path, share: float) -> dict[str, Callable[[], object]]:
    clips, latents = runs / "clips", runs / "latents"

    def encode_all() -> None:
        vae = autoencoder(runs)
        # What the base needs first, some of both kinds: it can train meanwhile.
        tasks = [
            (kind == "talk", number / count, kind, number) for kind, count in COUNTS.items() for number in range(count)
        ]
        for *_, kind, number in sorted(tasks)[parallel.rank() :: parallel.workers()]:
            say(f"latents {write_latents(vae, clips, latents, kind, number).name}")

    def make_autoencoder() -> None:
        if not (runs / "autoencoder.pt").exists():
            torch.save(train_autoencoder(clips, runs, share, say=say).state_dict(), runs / "autoencoder.pt")

    def make_encoders() -> None:
        for encoder in (text_encoder, speech_encoder, image_encoder):
            if not encoder.FILE.exists():
                say(f"{encoder.FILE.stem} {encoder.train()}")

    return {
        "encoders": make_encoders,
        "clips": lambda: [say(f"clips {path.name}") for path in write_chunks(clips)],
        "autoencoder": make_autoencoder,
        "latents": encode_all,
        "video": lambda: video(runs, share),
        **{job.value: lambda job=job: own(runs, job, share) for job in Job},
        **{f"{job.value}-distilled": lambda job=job: distilled(runs, job, share) for job in distil.GUIDANCE},
        "export": lambda: export(runs),
    }


def export(runs: Path) -> None:
    """The checkpoints in nano/, and in runs/exact as they were before they were packed."""
    exact = runs / "exact"
    exact.mkdir(exist_ok=True)
    for job in Job:
        name = f"{job.value}-distilled" if job in distil.GUIDANCE else job.value
        model = trained(runs, name, new_transformer(params_of(job)))
        say(f"export {write_transformer(model, job, shipped.NANO / shipped.MODELS[job]).name}")
        write_transformer(model, job, exact / shipped.MODELS[job], packed=False)
    write_autoencoder(autoencoder(runs), shipped.NANO / shipped.FILES["vae"])
    for name in shipped.FILES.values():
        shutil.copyfile(shipped.NANO / name, exact / name)


def work(stage: str, runs: Path, share: float, with_compiler: bool) -> None:
    """One stage, in each of the processes that do it."""
    if stage in ALONE:
        torch.set_num_threads(1)
    elif with_compiler:
        compiled()
    stages(runs, share)[stage]()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=STAGES, default=STAGES, metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument("--steps", type=float, default=1.0, help="share of the steps")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes that train together")
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--no-compile", action="store_true", help="where there is no compiler")
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    for stage in STAGES:
        if stage in options.only:
            together = options.workers if stage not in ALONE else 1
            parallel.launch(together, work, stage, options.runs, options.steps, not options.no_compile)


if __name__ == "__main__":
    main()
