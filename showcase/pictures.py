"""Every picture of README.md and of the template browser that shows a run, from runs with the nano checkpoints.

.venv/bin/python showcase/pictures.py             runs every workflow, some minutes, and draws all pictures
.venv/bin/python showcase/pictures.py NAME ...    of some workflows
.venv/bin/python showcase/pictures.py --drawn     draws again what the last runs made

workflows/NAME.jpg     of every workflow, for the template browser
docs/NAME.webp         a loop of those in LOOPED, for README.md
docs/templates.webp    the template browser with them, where Chromium is there (dev/setup/environment.py --browser)
"""

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))  # for `pack`
from pack.dev.comfyui.server import PACK, Server, ServerError
from pack.dev.samples.workflow_inputs import WORKFLOWS
from pack.dev.setup.downloads import ROOT, SetupError
from pack.dev.setup.environment import chromium_path
from pack.showcase.demo import FOLDER, run_all
from pack.showcase.jobs import DEMOS
from pack.showcase.loops import write_loop
from pack.showcase.runs import Run, runs
from pack.showcase.thumbnails import write_thumbnail
from pack.tools.batching.workflow import WorkflowError

DOCS = ROOT / "docs"
LOOPED = ("reference_to_video", "storyboard_extension", "talking_avatar", "dialogue", "dub_footage", "film")
BROWSER = (1500, 1092)  # pixels of the page
WIDTH = 1100  # of the picture of it


def draw(run: Run) -> None:
    """The pictures of a workflow, with a line about each."""
    written = [write_thumbnail(WORKFLOWS / f"{run.name}.jpg", run)]
    if run.name in LOOPED:
        written.append(write_loop(DOCS / f"{run.name}.webp", run))
    for path in written:
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes", flush=True)


def photograph_templates(path: Path) -> Path:
    """The template browser at this pack's workflows."""
    from pack.dev.comfyui.page import Page  # needs playwright

    with TemporaryDirectory() as folder, Server() as server, Page(server, size=BROWSER) as page:
        page.templates(PACK)
        shot = Path(folder) / "templates.png"
        page.tab.locator('[role="dialog"]:visible').first.screenshot(path=str(shot))
        with Image.open(shot) as image:
            size = WIDTH, round(WIDTH * image.height / image.width)
            image.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(path, "WEBP", quality=85, method=6)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes")
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw the pictures that show runs, from runs with nano checkpoints.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a workflow's file name without .json; default: all")
    parser.add_argument("--drawn", action="store_true", help="draw again what the last runs made, run nothing")
    options = parser.parse_args()
    names = options.names or list(DEMOS)
    unknown = [name for name in names if name not in DEMOS]
    if unknown:
        print(f"There is no {', '.join(unknown)} in workflows/: it has {', '.join(DEMOS)}.", file=sys.stderr)
        return 1
    try:
        good = names if options.drawn else run_all(names)
        made = runs(FOLDER)
        missing = [name for name in names if name not in made or name not in good]
        if missing:
            raise SetupError(f"There is no good run of {', '.join(missing)}, so its pictures stay as they are.")
        for name in names:
            draw(made[name])
        if chromium_path():
            photograph_templates(DOCS / "templates.webp")
    except (SetupError, ServerError, WorkflowError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
