"""What a dub of drawn footage comes to, by strength: training/report/dub.md.

    python training/dub.py            some twenty minutes on two cores
    python training/dub.py --pairs 1  a first look

Lips, head and colours by strength, of somebody who stands and of somebody who walks; the light of a head over a
minute beside what the VAE alone does to it; and memory over three minutes beside ten seconds.
"""

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent / "tools"), *(entry for entry in sys.path if Path(entry or ".").resolve() != HERE)]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TQDM_DISABLE", "1")

import numpy as np  # noqa: E402

from pack.skyreels_v3.speech.recording import FPS  # noqa: E402
from pack.skyreels_v3.video.writer import VideoWriter  # noqa: E402
from pack.training.measures.dubbing import (  # noqa: E402
    LUMA,
    MOVING,
    STILL,
    DubTrial,
    dub_scores,
    dub_trials,
    openness_in_silence,
)
from pack.training.measures.studio import Studio, image  # noqa: E402
from pack.training.world.voices import say  # noqa: E402

STRENGTHS = (1.0, 0.95, 0.85, 0.6)
MINUTE = 60.0  # seconds
WINDOW = 81  # frames
PLACE = "0.25, 0, 0.75, 0.8"  # of the head, where memory is measured
LENGTHS = (10.0, 180.0)  # seconds, of which the memory is compared
COLUMNS = ("lips", "twin", "old", "lag", "silence", "motion", "outside", "away", "luma")
HEAD = """# Dubs of drawn footage

Made by `python training/dub.py` with the nano models on a processor: {pairs} pairs of clips of 192 x 128 in which
somebody talks, of each kind, given another recording of 2.6 s. The nano avatar was trained on people who stand; it has
never seen one who walks. No number says anything about the published checkpoint; they say what the node does to a model
that is known.

lips, twin, old: correlation of the mouth with the new recording, with its twin's (the control), and with what the
footage said, within one frame.  lag: in frames.  silence: how far the mouth opens, 0 to 1, where the recording is
silent.  motion: of the head away from the footage's, in picture heights.  outside, away: PSNR in dB outside of the
mask, and inside of it but away from the mouth.  luma: mean difference there, of 255.

| | strength | {columns} |
| --- | ---: |{rules}
"""
REASON = """
The default is 0.85, the lowest level that the model was distilled for: lips, lag and silence are those of 1, no more of
the old words is left, a walking head is nearer to where it was in the footage, and two of the four steps are left,
which is half the time. 0.6 halves the distance of a walking head, at a level that the model was not distilled for. Lips
of somebody who walks say nothing here: this nano model never saw one.
"""


def scores_of(studio: Studio, pairs: Sequence[tuple[DubTrial, DubTrial]], strength: float) -> dict[str, float]:
    """The mean of every measure over pairs of twins."""
    every = []
    for pair in pairs:
        for trial, twin in (pair, pair[::-1]):
            every.append(dub_scores(trial, twin, studio.dub(trial, strength=strength)))
        silent = pair[0].silenced
        every[-1]["silence"] = openness_in_silence(silent, studio.dub(silent, strength=strength))
    return {name: float(np.mean([one[name] for one in every if name in one])) for name in COLUMNS}


def table(studio: Studio, count: int) -> str:
    rows = HEAD.format(pairs=count, columns=" | ".join(COLUMNS), rules=" ---: |" * len(COLUMNS))
    for action, words in ((STILL, "who stands"), (MOVING, "who walks")):
        pairs = list(dub_trials(count, action))
        for strength in STRENGTHS:
            found = scores_of(studio, pairs, strength)
            rows += f"| {words} | {strength:g} | {' | '.join(_number(found[name]) for name in COLUMNS)} |\n"
            print(rows.splitlines()[-1], flush=True)
    return rows + REASON


def light(studio: Studio, length: float) -> str:
    """How the light of a head walks away over so many seconds, away from the mouth."""
    ((trial, _),) = dub_trials(1, STILL, length)
    made, away, part = studio.dub(trial), trial.away, trial.spoken
    vae, tool = studio.pack.module("nodes.encoders.vae"), studio._tools["vae"]
    pixels = image(trial.frames[:WINDOW]).movedim(-1, 0)[None] * 2 - 1
    pieces = [piece[0].movedim(0, -1).cpu().numpy() for piece in vae.decoder(tool)(vae.encoder(tool)(pixels))]
    alone = (np.concatenate(pieces) + 1) * 127.5
    seconds = []
    for first in range(part.start, part.stop - FPS + 1, FPS):
        these = slice(first, first + FPS)
        seconds.append(float(((made[these].astype(float) - trial.frames[these])[away[these]] @ LUMA).mean()))
    floor = np.abs(((alone - trial.frames[:WINDOW])[away[:WINDOW]] @ LUMA).mean())
    return (
        f"\n## Over {length:g} s\n\n"
        "Light of the head away from the mouth against the footage, second by second, of 255: "
        f"{np.mean(seconds[:5]):+.2f} in the first five, {np.mean(seconds[-5:]):+.2f} in the last five, at most "
        f"{np.abs(seconds).max():.2f}. The VAE alone changes it by {floor:.2f}. Outside of the mask nothing changes.\n"
    )


def memory() -> str:
    peaks = []
    for seconds in LENGTHS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            peaks.append(pool.apply(peak, (seconds,)))
    short, long = peaks
    return (
        f"\n## Memory\n\nPeak of the process with the nano models: {short:.0f} MB for {LENGTHS[0]:g} s of footage, "
        f"{long:.0f} MB for {LENGTHS[1] / 60:g} minutes.\n"
    )


def peak(seconds: float) -> float:
    """MB that a process held at most to dub a file of so many seconds."""
    studio = Studio()
    ((trial, _),) = dub_trials(1, STILL, 2.0)
    high, wide = trial.frames.shape[1:3]
    longer = replace(trial, speech=say(trial.character, seconds - 1, trial.seed))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "footage.mp4"
        with VideoWriter(path, wide, high, FPS) as writer:
            for number in range(round(seconds * FPS)):
                writer.write(trial.frames[number % len(trial.frames)])
        source = video_file(path)
        with studio.dubbed(longer, source=source, mask=None, box=PLACE, steps=1):
            pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def video_file(path: Path):
    """A file as VIDEO; ComfyUI is there by now."""
    from comfy_api.latest import InputImpl

    return InputImpl.VideoFromFile(str(path))


def _number(value: float) -> str:
    return "∞" if value == float("inf") else f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pairs", type=int, default=3, help="of clips, of each kind")
    parser.add_argument("--seconds", type=float, default=MINUTE, help="in which the light is looked at")
    parser.add_argument("--only", choices=("table", "light", "memory"), help="nothing else, and no report")
    arguments = parser.parse_args()
    made = []
    if arguments.only in (None, "memory"):
        made.append(memory())
    if arguments.only in (None, "table", "light"):
        studio = Studio()
        made += [light(studio, arguments.seconds)] if arguments.only in (None, "light") else []
        made += [table(studio, arguments.pairs)] if arguments.only in (None, "table") else []
    text = "".join(reversed(made))
    print(text)
    if arguments.only is None:
        (HERE / "report" / "dub.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
