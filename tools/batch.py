"""Queue a table of prompts, or a folder of pictures or recordings, against a running ComfyUI.

    python tools/batch.py my_workflow.json prompts.csv
    python tools/batch.py my_workflow.json prompts.txt        one prompt a line
    python tools/batch.py my_workflow.json portraits/         one run for each name: anna.png, anna.wav, anna.txt
    python tools/batch.py my_workflow.json prompts.csv --check

Runs with any Python from 3.10 on, without ComfyUI's; nothing need be installed. The workflow is one that the page
saved or exported for the API. Columns are called like inputs of nodes (prompt, seed, image, steps ...), or
"Title of node.input" where several nodes have one of that name; `name` names a row's results, and a column that
begins with # is yours. Empty cells leave what the workflow has. Files are looked for beside the table, then in
ComfyUI's folder input. Results lie in a folder that is called like the table and carry their workflow: drop one onto
the page to open it. Braces such as {red|blue}, of which the page picks one, are text here.

A failed row is noted and the next one runs. Ctrl+C, a crash or a restart of ComfyUI lose nothing: the same command
goes on where it stopped, with rows that were changed or that failed made again. What is done stands in a file beside
the table, prompts.batch.json.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # not every Python looks beside a script
from pack.tools.batching.rows import KINDS, BatchError, Field, Row, Template, read_rows, row_key, value_of
from pack.tools.batching.server import Away, ComfyUI, Denied, Refused, files, outcome, seconds
from pack.tools.batching.way import HEADER, WayError
from pack.tools.batching.workflow import WorkflowError

AHEAD = 2  # tasks in ComfyUI's queue at once: it never waits for us, and others' tasks get in between
POLL = 0.5  # seconds
LOST = 2  # times that ComfyUI may end while it runs a row until that row is left out
DONE, FAILED, CANCELLED, QUEUED, OPEN = "done", "failed", "cancelled", "queued", "open"


@dataclass
class Task:
    """A row with its values. record: what the state file keeps of it."""

    row: Row
    values: dict[tuple[str, str], object]
    uploads: dict[tuple[str, str], Path]
    key: str
    record: dict = field(default_factory=lambda: {"state": OPEN})
    outages: int = 0  # of the server when it was queued


class State:
    """What is done, in a file that is whole at every moment."""

    def __init__(self, path: Path, forget: bool = False):
        self.path = path
        self.rows: dict[str, dict] = {}
        if path.exists() and not forget:
            try:
                self.rows = dict(json.loads(path.read_text(encoding="utf-8"))["rows"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise BatchError(f"{path.name} is damaged: remove it, and every row is made again.") from error

    def save(self) -> None:
        unfinished = self.path.with_name(f"{self.path.name}.unfinished")
        unfinished.write_text(json.dumps({"rows": self.rows}, indent=1, ensure_ascii=False), encoding="utf-8")
        os.replace(unfinished, self.path)


class Batch:
    """The tasks of one table, queued one after another until all have ended."""

    def __init__(self, server: ComfyUI, template: Template, tasks: list[Task], state: State, folder: str):
        self.server = server
        self.template = template
        self.tasks = tasks
        self.state = state
        self.folder = folder
        self.titles = {one.node: one.title for one in template.fields}
        self.outages = 0
        self.began: dict[str, float] = {}

    def run(self, say: Callable[[str], None], show: Callable[[str], None]) -> None:
        """say: prints a line that stays.  show: writes one that the next takes the place of."""
        todo = [task for task in self.tasks if task.record["state"] in (OPEN, FAILED, CANCELLED)]
        active = [task for task in self.tasks if task.record["state"] == QUEUED]
        for task in active:
            task.outages = -1  # nobody watched since: one that is gone was lost
        away = False
        try:
            while todo or active:
                try:
                    active = [task for task in active if not self._ended(task, todo, say)]
                    while todo and len(active) < AHEAD:
                        active.append(todo.pop(0))
                        if not self._queue(active[-1], say):
                            active.pop()
                    away = False
                except (Away, Refused) as error:
                    if not away:
                        self.outages += 1
                        why = error if isinstance(error, Denied) else f"ComfyUI does not answer ({error});"
                        say(f"{why} waiting for it at {self.server.address}.")
                    away = True
                show(self._status(active, len(todo)))
                if todo or active:
                    time.sleep(POLL)
        except KeyboardInterrupt:
            self._withdraw(active)
            raise

    def _queue(self, task: Task, say) -> bool:
        """Puts a task into the queue; False where ComfyUI refuses it. Raises Away, with the task noted as queued."""
        prompt_id = str(uuid.uuid4())
        lost = task.record.get("lost", 0)
        self._note(task, state=QUEUED, id=prompt_id, lost=lost, running=False, seconds=None, files=[], why="")
        task.outages = self.outages
        try:
            names = {key: self.server.upload(path) for key, path in task.uploads.items()}
            prompt, workflow = self.template.filled({**task.values, **names}, f"{self.folder}/{task.row.name}")
            self.server.queue(prompt, prompt_id, workflow)
        except Refused as error:
            self._end(task, FAILED, str(error), say)
            return False
        except OSError as error:
            if isinstance(error, Away):
                task.outages = -1
                raise
            self._end(task, FAILED, f"{error.filename} cannot be read ({error.strerror}).", say)
            return False
        return True

    def _ended(self, task: Task, todo: list[Task], say) -> bool:
        """Whether a queued task is no longer one; what came of it is noted, one that was lost is to do again."""
        record = task.record
        # In this order: a task that ends in between is in the history by then.
        running, pending = self.server.queued()
        if record["id"] in running | pending:
            if record["id"] in running and not record["running"]:
                self.began[record["id"]] = time.monotonic()
                self._note(task, running=True)
            return False
        entry = self.server.entry(record["id"])
        if entry is not None:
            state, why = outcome(entry, self.titles)
            self._note(task, seconds=seconds(entry), files=files(entry))
            self._end(task, state, why, say)
        elif task.outages == self.outages:
            self._end(task, CANCELLED, "It was taken out of ComfyUI's queue.", say)
        else:
            record["lost"] += record["running"]
            if record["lost"] >= LOST:
                self._end(task, FAILED, f"ComfyUI ended {LOST} times while it ran.", say)
            else:
                todo.insert(0, task)
        return True

    def _end(self, task: Task, state: str, why: str, say) -> None:
        self._note(task, state=state, why=why)
        took = "" if task.record["seconds"] is None else f" in {clock(task.record['seconds'])}"
        ended = sum(one.record["state"] in (DONE, FAILED, CANCELLED) for one in self.tasks)
        what = ", ".join(task.record["files"]) if state == DONE else why
        say(f"[{ended}/{len(self.tasks)}] {task.row.name} {state}{took}: {what or 'no file'}")

    def _note(self, task: Task, **what) -> None:
        task.record.update(what, name=task.row.name, row=task.row.number)
        self.state.rows[task.key] = task.record
        self.state.save()

    def _withdraw(self, active: list[Task]) -> None:
        """Takes what does not run yet out of ComfyUI's queue."""
        try:
            running, _ = self.server.queued()
            waiting = [task for task in active if task.record["id"] not in running]
            self.server.cancel([task.record["id"] for task in waiting])
        except (Away, Refused):
            return
        for task in waiting:
            self._note(task, state=OPEN)

    def _status(self, active: list[Task], left: int) -> str:
        now = [task for task in active if task.record["running"]]
        parts = []
        for task in now:
            since = self.began.get(task.record["id"])
            parts.append(f"{task.row.name} runs" + ("" if since is None else f", {clock(time.monotonic() - since)}"))
        times = [task.record["seconds"] for task in self.tasks if task.record.get("seconds")]
        remain = left + len(active)
        about = f", about {clock(remain * sum(times) / len(times))}" if times and remain else ""
        return "; ".join([*parts, f"{remain} to go{about}"])


def clock(seconds: float) -> str:
    """65 -> 1:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def summary(tasks: list[Task]) -> str:
    """The table at the end."""
    lines = [("row", "name", "state", "seconds", "file")]
    for task in tasks:
        record = task.record
        took = record.get("seconds")
        what = ", ".join(record.get("files") or []) or record.get("why", "")
        lines.append(
            (str(task.row.number), task.row.name, record["state"], "" if took is None else f"{took:.1f}", what)
        )
    widths = [max(map(len, column)) for column in zip(*lines)]
    count = {state: sum(task.record["state"] == state for task in tasks) for state in (DONE, FAILED, CANCELLED)}
    rest = len(tasks) - sum(count.values())
    end = ", ".join(f"{number} {state}" for state, number in {**count, "to do": rest}.items() if number)
    rows = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    return "\n".join([*rows, f"{end}."])


def make_tasks(rows: list[Row], template: Template, base: Path, into: list[str], state: State) -> list[Task]:
    """Every row with its values, all of them checked. Raises BatchError for the first that is wrong."""
    chosen = {one.upload or "prompt": one for one in map(template.field, into)}
    columns = {column: chosen.get(column) or _field(column, template) for row in rows for column in row.cells}
    tasks, keys = [], {}
    for row in rows:
        values, uploads = {}, {}
        for column, text in row.cells.items():
            one = columns[column]
            try:
                path = (base / text).resolve() if one.upload else None
                if path is not None and path.is_file():
                    uploads[one.key] = path
                else:
                    values[one.key] = value_of(one, text)
            except BatchError as error:
                beside = f" There is no such file in {base} either." if one.upload else ""
                raise BatchError(f"Row {row.number} ({row.name}), column {column}: {error}{beside}") from error
        prompt, _ = template.filled(values, row.name)
        key = row_key(prompt, list(uploads.values()))
        keys[key] = keys.get(key, 0) + 1
        key = f"{key}-{keys[key]}"  # rows that are alike are made as often as they are there
        tasks.append(Task(row, values, uploads, key, state.rows.get(key) or {"state": OPEN}))
    return tasks


def _field(column: str, template: Template) -> Field:
    try:
        return template.field(column)
    except BatchError:
        if column not in KINDS:
            raise
        return template.upload_field(column)


def arguments(given: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="batch.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workflow", type=Path, help="the workflow, a .json file")
    parser.add_argument("table", type=Path, help="a .csv, a .txt with a prompt a line, or a folder")
    parser.add_argument(
        "--server",
        default="http://127.0.0.1:8188",
        help="ComfyUI's address, with name:password@ before the host where it asks for them; default: %(default)s",
    )
    parser.add_argument(
        "--header",
        action="append",
        default=[],
        metavar=HEADER,
        help="sent with every request, for what stands before ComfyUI, as 'Authorization: Bearer ...'",
    )
    parser.add_argument(
        "--into",
        action="append",
        default=[],
        metavar="FIELD",
        help="where a folder's pictures, recordings, clips or prompts go, as 'Load Image: face.image', if there are "
        "several places for them",
    )
    parser.add_argument("--check", action="store_true", help="only say what would be queued, and what is wrong")
    parser.add_argument("--again", action="store_true", help="make every row again, also those that are done")
    return parser.parse_args(given)


def prepare(options: argparse.Namespace, server: ComfyUI) -> tuple[Template, list[Task], State]:
    """Reads and checks everything. Raises BatchError, WorkflowError and Away."""
    rows = read_rows(options.table)
    try:
        workflow = json.loads(options.workflow.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BatchError(f"{options.workflow} is no workflow that can be read ({error}).") from error
    if not isinstance(workflow, dict):
        raise BatchError(f"{options.workflow} is no workflow of ComfyUI.")
    template = Template(workflow, server.object_info())
    table = options.table.resolve()
    state = State(table.with_name(f"{table.stem}.batch.json"), options.again)
    base = table if table.is_dir() else table.parent
    return template, make_tasks(rows, template, base, options.into, state), state


def main(given: list[str] | None = None) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # names that an old console of Windows cannot show
    options = arguments(given)
    try:
        server = ComfyUI(options.server, options.header)
    except WayError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        template, tasks, state = prepare(options, server)
    except Denied as error:
        print(error, file=sys.stderr)
        return 2
    except Away as error:
        print(f"ComfyUI does not answer at {server.address} ({error}): start it, or give --server.", file=sys.stderr)
        return 2
    except (BatchError, Refused, WorkflowError) as error:
        print(error, file=sys.stderr)
        return 2
    before = sum(task.record["state"] == DONE for task in tasks)
    names = sorted({f"{one.title}.{one.input}" for one in template.fields for task in tasks if _fills(task, one)})
    print(f"{len(tasks)} rows, {before} of them done before; they fill in {', '.join(names) or 'nothing'}.", flush=True)
    if options.check:
        return 0
    live, width = sys.stdout.isatty(), shutil.get_terminal_size().columns - 1
    batch = Batch(server, template, tasks, state, options.table.resolve().stem)
    code = 0
    try:
        batch.run(
            say=lambda line: print(("\r\x1b[K" if live else "") + line, flush=True),
            show=lambda line: print(f"\r\x1b[K{line[:width]}", end="", flush=True) if live else None,
        )
    except KeyboardInterrupt:
        print("\nStopped. What runs in ComfyUI runs on; the same command goes on from here.")
        code = 130
    print(("\r\x1b[K" if live else "") + "\n" + summary(tasks), flush=True)
    return code or int(any(task.record["state"] != DONE for task in tasks))


def _fills(task: Task, one: Field) -> bool:
    return one.key in task.values or one.key in task.uploads


if __name__ == "__main__":
    sys.exit(main())
