"""Measure finished videos: cuts, seams, colours, smoothness, likeness to references, mouths against speech.

    python tools/measure.py video.mp4
    python tools/measure.py take1.mp4 take2.mp4 take3.mp4 --references anna.png cafe.png      the best first
    python tools/measure.py talk.mp4 --speech hello.wav
    python tools/measure.py film.mp4 --script script.txt
    python tools/measure.py --setup        once: a venv of its own, with the network that finds cuts

It runs with ComfyUI's Python as it is, or with any other one after --setup. Videos that ComfyUI saved carry their
script; only others need --script. Beside the first video it writes a page, measured.html, and the same as
measured.json. What cannot be measured, for want of weights or of a script, is left out and told in a line.
docs/measures.md says what each number is, and how it stands to those of the report.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent))  # not every Python looks beside a script
from pack.tools.measuring.python import WEIGHTS, SetupError, handed_over, set_up

if TYPE_CHECKING:
    from pack.tools.measuring.measured import Measured, Task

NAME = "measured.html"


def arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="measure.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("videos", nargs="*", type=Path, metavar="VIDEO")
    parser.add_argument("--references", nargs="+", type=Path, default=[], metavar="PICTURE", help="what it should show")
    parser.add_argument("--speech", metavar="FILE", help="the recording that is spoken; own: the video's sound")
    parser.add_argument(
        "--script", metavar="FILE", help="the script, a text file or the text; default: the video's own"
    )
    parser.add_argument(
        "--weights",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="CLIP and DINO: files of ComfyUI's clip_vision, or folders with a config.json; default: those of ComfyUI",
    )
    parser.add_argument(
        "--syncnet", type=Path, default=WEIGHTS, metavar="FOLDER", help="of SyncNet's two files; default: %(default)s"
    )
    parser.add_argument("--page", type=Path, metavar="FILE", help=f"default: {NAME} beside the first video")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="a picture with frames of every best video, .jpg")
    parser.add_argument(
        "--tasks", type=Path, metavar="FILE", help="a JSON list of what to measure, as batch.py writes it"
    )
    parser.add_argument("--setup", action="store_true", help="make the venv, or add what it lacks, and stop")
    parser.add_argument("--lips", action="store_true", help="with --setup: SyncNet's package too, 300 MB")
    return parser.parse_args(given)


def tasks_of(options: argparse.Namespace) -> list[Task]:
    """Raises InputError."""
    from pack.skyreels_v3.errors import InputError
    from pack.tools.measuring.measured import Task

    script = options.script
    if script is not None and "\n" not in script and Path(script).is_file():
        script = Path(script).read_text(encoding="utf-8-sig")
    elif script is not None and ":" not in script:
        raise InputError(f"The script {script} is not there: give a text file, or the lines themselves.")
    found = [Task(video, video.stem, tuple(options.references), script, options.speech) for video in options.videos]
    if options.tasks is not None:
        for row in json.loads(options.tasks.read_text(encoding="utf-8")):
            references = tuple(map(Path, [*row.get("references", []), *options.references]))
            speech = row.get("speech") or options.speech
            found.append(Task(Path(row["video"]), row["name"], references, script, speech, row.get("group", "")))
    if not found:
        raise InputError("No video is named: python tools/measure.py VIDEO ...")
    return found


def run(options: argparse.Namespace) -> int:
    """Raises InputError."""
    from pack.skyreels_v3.errors import InputError
    from pack.tools.measuring import page, record, sheet
    from pack.tools.measuring.likeness import open_networks, weights_at_hand
    from pack.tools.measuring.measured import Tools, measure
    from pack.tools.measuring.ranking import in_groups

    tasks = tasks_of(options)
    needed = any(task.references for task in tasks)
    networks = open_networks(options.weights or weights_at_hand(), bool(options.weights)) if needed else []
    tools = Tools(networks, options.syncnet)
    videos: list[Measured] = []
    problems: dict[str, str] = {}
    for number, task in enumerate(tasks, start=1):
        print(f"[{number}/{len(tasks)}] {task.name}", flush=True)
        try:
            videos.append(measure(task, tools))
        except InputError as error:
            problems[str(task.video)] = str(error)
            print(f"  {error}", file=sys.stderr, flush=True)
    if not videos:
        return 2
    groups = in_groups(videos)
    target = (options.page or tasks[0].video.with_name(NAME)).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_suffix(".json").write_text(record.as_json(groups, problems), encoding="utf-8")
    target.write_text(page.as_page(groups, problems, target.parent), encoding="utf-8")
    print("\n" + record.as_text(groups))
    for sentence in dict.fromkeys(sentence for one in videos for sentence in one.left_out):
        print(f"Left out. {sentence}")
    if options.sheet is not None:
        sheet.contact_sheet(groups).save(options.sheet, quality=88)
        print(f"Contact sheet: {options.sheet}")
    print(f"Page: {target}")
    return 1 if problems else 0


def main(given: list[str] | None = None) -> int:
    given = sys.argv[1:] if given is None else given
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # names that an old console of Windows cannot show
    options = arguments(given)
    try:
        if options.setup:
            set_up(options.lips)
            return 0
        code = handed_over(given)
    except SetupError as error:
        print(error, file=sys.stderr)
        return 2
    if code is not None:
        return code
    from pack.skyreels_v3.errors import InputError

    try:
        return run(options)
    except (InputError, OSError) as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
