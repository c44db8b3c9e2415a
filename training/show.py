"""Pictures of the drawn world, to look at.

python training/show.py sheet.png                 a contact sheet of all characters, objects and places
python training/show.py scenes.png --scenes 24    scenes at random, with --seed
python training/show.py clip.gif --prompt "A fox waves on the beach at dusk."
python training/show.py job.gif --job avatar      what a job is trained on: reference, extension, shot, avatar
"""

import argparse
import random
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))  # for `pack`
from pack.training.world.looks import CHARACTERS
from pack.training.world.prompts import read, write
from pack.training.world.render import render, render_clip
from pack.training.world.samples import avatar_sample, extension_sample, reference_sample, shot_sample
from pack.training.world.scenes import BACKGROUNDS, TIMES, Actor, Scene, drawn_scene
from pack.training.world.things import OBJECTS

COLUMNS = 6
FPS = 25


def grid(pictures: list[np.ndarray], columns: int = COLUMNS) -> np.ndarray:
    """One picture of several of one size."""
    rows = [np.concatenate(pictures[i : i + columns], axis=1) for i in range(0, len(pictures), columns)]
    rows = [np.pad(row, ((0, 0), (0, rows[0].shape[1] - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    return np.concatenate(rows)


def world_sheet(size: tuple[int, int]) -> np.ndarray:
    """Every character once, with every object and place at least once."""
    actions = ("waves", "talks", "jumps", "stands", "walks right", "nods")
    return grid(
        [
            render(
                Scene(
                    (Actor(name, actions[i % 6], OBJECTS[i] if i < len(OBJECTS) else None),),
                    BACKGROUNDS[i % 8],
                    TIMES[(0, 0, 1, 2)[i % 4]],
                    seed=i,
                ),
                1.15,
                size,
            )
            for i, name in enumerate(CHARACTERS)
        ],
        4,
    )


def job_strip(job: str, rng: random.Random, size: tuple[int, int]) -> tuple[str, list[np.ndarray]]:
    """The prompt and the frames of a sample, with what is given standing beside them."""
    if job == "reference":
        sample = reference_sample(rng, 49, size)
        given = [reference.image for reference in sample.references]
        return sample.prompt, [np.concatenate([frame, *given], axis=1) for frame in sample.frames]
    if job in ("extension", "shot"):
        sample = extension_sample(rng, 48, size=size) if job == "extension" else shot_sample(rng, 49, size=size)
        return sample.prompt, [*sample.prefix, *sample.frames]
    sample = avatar_sample(rng, 81, rng.choice((1, 2)), size)
    return sample.prompt, [np.concatenate([frame, sample.portrait], axis=1) for frame in sample.frames]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a .png, or a .gif with --prompt or --job")
    parser.add_argument("--prompt", help="a clip of what it says")
    parser.add_argument("--job", choices=("reference", "extension", "shot", "avatar"))
    parser.add_argument("--scenes", type=int, default=0, help="so many scenes at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", default="192x128", help="width x height of a picture")
    options = parser.parse_args()
    size = tuple(int(side) for side in options.size.split("x"))
    rng = random.Random(options.seed)
    if options.prompt or options.job:
        if options.prompt:
            text, frames = options.prompt, list(render_clip(read(options.prompt)[0], 3 * FPS, FPS, size=size))
        else:
            text, frames = job_strip(options.job, rng, size)
        print(text)
        images = [Image.fromarray(frame) for frame in frames]
        images[0].save(options.file, save_all=True, append_images=images[1:], duration=1000 // FPS, loop=0)
    else:
        scenes = [drawn_scene(rng) for _ in range(options.scenes)]
        for scene in scenes:
            print(write(scene))
        picture = grid([render(scene, 1.0, size) for scene in scenes]) if scenes else world_sheet(size)
        Image.fromarray(picture).save(options.file, optimize=True)


if __name__ == "__main__":
    main()
