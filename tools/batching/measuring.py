"""The end of a batch that measures: a page of all videos, the best take of each row, a contact sheet."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..measuring.python import python_for_measuring, started, told
from .results import Results
from .rows import KINDS, BatchError
from .server import ANNOTATED, Away, ComfyUI, Refused
from .state import Task

PAGE, SHEET, BEST = "measured.html", "contact_sheet.jpg", "best"
GIVEN = "given"  # folder of what rows name of ComfyUI's folder input


def check() -> Path:
    """The Python that will measure. Raises BatchError where there is none: before hours of making videos."""
    python = python_for_measuring()
    if python is None:
        raise BatchError(f"{told()} (--measure and --takes need it)")
    return python


def bring_the_rest(tasks: Sequence[Task], servers: Sequence[ComfyUI], results: Results, note: Callable) -> None:
    """Brings the files of rows that were done by a batch that left them on the server. What is gone is told."""
    by_address = {server.address: server for server in servers}
    for task in tasks:
        if not task.done or "here" in task.record:
            continue
        server = by_address.get(task.record.get("server", ""))
        try:
            if server is None:
                raise Away("its server is not among those of this command")
            note(task, files=results.bring(server, task, task.record["files"], note))
        except (Away, Refused) as error:
            task.record.pop("here", None)
            print(f"{task.row.name} is not measured: its files cannot be had ({error}).")


def bring_the_named(tasks: Sequence[Task], servers: Sequence[ComfyUI], folder: Path) -> None:
    """Brings the pictures and recordings of rows that lie in ComfyUI's folder input. What cannot be had is told."""
    by_address = {server.address: server for server in servers}
    tried: dict[tuple[str, str], Path | None] = {}
    for task in (task for task in tasks if task.done):
        address = task.record.get("server", "")
        for name in task.named:
            path = folder / GIVEN / _plain(name)
            if (address, name) not in tried and (_is(path, "image") or _is(path, "audio")):
                tried[address, name] = _brought(by_address.get(address), name, path)
            found = tried.get((address, name))
            task.brought += [found] if found else []


def _brought(server: ComfyUI | None, name: str, path: Path) -> Path | None:
    try:
        if server is None:
            raise Away("its server is not among those of this command")
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.unfinished")
        try:
            with unfinished.open("wb") as file:
                server.fetch(name, file, given=True)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except (Away, Refused, OSError) as error:
        print(f"{name} of ComfyUI's folder input is not compared with: it cannot be had ({error}).")
        return None
    return path


def _plain(name: str) -> Path:
    """Where a copy lies: the name without what leads elsewhere, such as an ending ` [output]`, a drive or `..`."""
    found = ANNOTATED.fullmatch(name)
    parts = re.split(r"[\\/]", found[1] if found else name)
    return Path(*(re.sub(r'[:*?"<>|]', "_", part) for part in parts if part.strip(". ")))


def measure(python: Path, tasks: Sequence[Task], results: Results) -> int:
    """Measures all videos that are here, and copies the best take of every row into the folder `best`.

    Returns 0 where all of that worked.
    """
    videos: list[dict[str, Any]] = []
    for task in tasks:
        found = _videos(task, results.folder) if task.done else []
        videos += found
        best = next((results.folder / BEST).glob(f"{glob.escape(task.group)}.*"), None)
        if found and best and task.group == task.row.name:
            print(
                f"{task.row.name} is measured as one take alone: {BEST}/{best.name} was picked from several; give the "
                "same --takes as then to compare them."
            )
        if task.done and not found:
            print(f"{task.row.name} is not measured: it has no video in {results.folder}.")
    if not videos:
        print("There is no video to be measured.")
        return 1
    if not any(video["references"] for video in videos) and not any(task.named for task in tasks):
        print("Likeness is not measured: no column of the table names a picture.")
    listed = results.folder / "measured.tasks.json"
    listed.write_text(json.dumps(videos, ensure_ascii=False), encoding="utf-8")
    page, sheet = results.folder / PAGE, results.folder / SHEET
    process = started(python, ["--tasks", str(listed), "--page", str(page), "--sheet", str(sheet)])
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.wait()
        return 130
    finally:
        listed.unlink(missing_ok=True)
    if code in (0, 1):
        _keep_the_best(json.loads(page.with_suffix(".json").read_text(encoding="utf-8")), tasks, results.folder)
    return code


def _videos(task: Task, folder: Path) -> list[dict[str, Any]]:
    """What measure.py is told of a task's videos: with the pictures and the recording that came with the row."""
    files = [*task.uploads.values(), *task.brought]
    pictures, recordings = ([str(one) for one in files if _is(one, kind)] for kind in ("image", "audio"))
    speech = recordings[0] if len(recordings) == 1 else None
    return [
        {
            "video": str(folder / name),
            "name": Path(name).stem,
            "references": pictures,
            "speech": speech,
            "group": task.group,
        }
        for name in task.record.get("here", [])
        if _is(Path(name), "video") and (folder / name).is_file()
    ]


def _is(path: Path, kind: str) -> bool:
    return path.suffix.lower() in KINDS[kind]


def _keep_the_best(made: Mapping[str, Any], tasks: Sequence[Task], folder: Path) -> None:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in made["videos"]:
        groups.setdefault(row["group"], []).append(row)
    several = {task.group for task in tasks if task.group != task.row.name}
    for name, rows in groups.items():
        if name not in several:
            continue
        best = Path(min(rows, key=lambda row: row["place"])["file"])
        target = folder / BEST / f"{name}{best.suffix}"
        target.parent.mkdir(exist_ok=True)
        unfinished = target.with_name(f"{target.name}.unfinished")
        shutil.copyfile(best, unfinished)
        os.replace(unfinished, target)
        print(f"Best of {name}: {best.name}, copied to {BEST}/{target.name}")
