"""Queue a table of prompts, or a folder of pictures or recordings, against a running ComfyUI.

    python tools/batch.py my_workflow.json prompts.csv
    python tools/batch.py my_workflow.json prompts.txt        one prompt a line
    python tools/batch.py my_workflow.json portraits/         one run for each name: anna.png, anna.wav, anna.txt
    python tools/batch.py my_workflow.json prompts.csv --check
    python tools/batch.py my_workflow.json prompts.csv --server 10.0.0.5:8188 --server 10.0.0.6:8188

Runs with any Python from 3.10 on, without ComfyUI's; nothing need be installed. The workflow is one that the page
saved or exported for the API. Columns are called like inputs of nodes (prompt, seed, image, steps ...), or
"Title of node.input" where several nodes have one of that name; `name` names a row's results, and a column that
begins with # is yours. Empty cells leave what the workflow has. Files are looked for beside the table, then in
ComfyUI's folder input. Results lie in a folder that is called like the table and carry their workflow: drop one onto
the page to open it. Braces such as {red|blue}, of which the page picks one, are text here.

--measure ends with numbers of every video, on a page; --takes 3 makes every row three times and picks the best.

With several servers a row goes to whoever is free, and from one that dies or hangs to another; the files come into one
folder beside the table. docs/several-devices.md has more.

A failed row is noted and the next one runs. Ctrl+C, a crash or a restart of ComfyUI lose nothing: the same command
goes on where it stopped, with rows that were changed or that failed made again. What is done stands in a file beside
the table, prompts.batch.json.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # not every Python looks beside a script
from pack.tools.batching import measuring
from pack.tools.batching.farm import Farm, all_needs
from pack.tools.batching.needs import Needs, needs_of
from pack.tools.batching.report import summary
from pack.tools.batching.results import Results
from pack.tools.batching.rows import KINDS, BatchError, Field, Row, Template, read_rows, row_key, value_of
from pack.tools.batching.scripts import wrong_script
from pack.tools.batching.server import TIMEOUT, Away, ComfyUI, Denied, Refused
from pack.tools.batching.state import OPEN, State, Task
from pack.tools.batching.takes import MOST, takes_of
from pack.tools.batching.way import HEADER, WayError
from pack.tools.batching.workflow import WorkflowError

SERVER = "http://127.0.0.1:8188"


def make_tasks(
    rows: list[Row], template: Template, base: Path, into: list[str], state: State, takes: int = 1
) -> list[Task]:
    """Every take of every row with its values, all of them checked. Raises BatchError for the first that is wrong."""
    chosen = {one.upload or "prompt": one for one in map(template.field, into)}
    columns = {column: chosen.get(column) or _field(column, template) for row in rows for column in row.cells}
    tasks, keys = [], {}
    for row in rows:
        values, uploads, named = {}, {}, []
        for column, text in row.cells.items():
            one = columns[column]
            try:
                path = (base / text).resolve() if one.upload else None
                if path is not None and path.is_file():
                    uploads[one.key] = path
                else:
                    values[one.key] = value_of(one, text)
                    named += [text] if one.upload else []
            except BatchError as error:
                beside = f" There is no such file in {base} either." if one.upload else ""
                raise BatchError(f"Row {row.number} ({row.name}), column {column}: {error}{beside}") from error
        for take, chosen_values in takes_of(row, values, template, takes):
            prompt, _ = template.filled(chosen_values, take.name)
            wrong = wrong_script(prompt)
            if wrong:
                raise BatchError(f"Row {row.number} ({row.name}): {wrong}")
            key = row_key(prompt, list(uploads.values()))
            keys[key] = keys.get(key, 0) + 1
            key = f"{key}-{keys[key]}"  # rows that are alike are made as often as they are there
            record = state.rows.get(key) or {"state": OPEN}
            needed = needs_of(prompt, uploads)
            tasks.append(Task(take, chosen_values, uploads, key, needed, record, row.name, tuple(named)))
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
        action="append",
        default=[],
        metavar="ADDRESS",
        help="ComfyUI's address, with name:password@ before the host where it asks for them; given several times, the "
        f"rows are shared out among them; default: {SERVER}",
    )
    parser.add_argument(
        "--servers",
        type=Path,
        metavar="FILE",
        help="a file with an address a line, such as the one that workers.py keeps; read again whenever it changes",
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
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FOLDER",
        help="where the files are brought to, under the names of their rows; default: with several servers a folder "
        "beside the table, with one they stay in ComfyUI's output folder",
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=TIMEOUT,
        metavar="SECONDS",
        help="how long a server may be silent until its rows go to others; default: %(default)s",
    )
    parser.add_argument(
        "--measure",
        action="store_true",
        help="measure the videos at the end: a page with all of them and a contact sheet; docs/measures.md has more",
    )
    parser.add_argument(
        "--takes",
        type=int,
        default=1,
        metavar="N",
        help="make every row so often, with its seed and those that follow, measure them, and copy the best one into "
        "the folder best",
    )
    parser.add_argument("--check", action="store_true", help="only say what would be queued, and what is wrong")
    parser.add_argument("--again", action="store_true", help="make every row again, also those that are done")
    return parser.parse_args(given)


class Servers:
    """The servers that the command line names, and those in the file of --servers, as it is now."""

    def __init__(self, options: argparse.Namespace):
        self._options = options
        self._file: Path | None = options.servers
        self._read: tuple[str, ...] = ()
        self._known: dict[str, ComfyUI] = {}

    @property
    def several(self) -> bool:
        return self._file is not None or len(self._options.server) > 1

    def now(self) -> list[ComfyUI]:
        """Raises WayError, and BatchError for a file that cannot be read or names none."""
        named = [*self._options.server]
        if self._file is not None:
            try:
                lines = [line.strip() for line in self._file.read_text(encoding="utf-8").splitlines()]
            except (OSError, ValueError) as error:
                raise BatchError(f"{self._file} of --servers cannot be read ({error}).") from error
            named += [line for line in lines if line and not line.startswith("#")]
            if not named:
                raise BatchError(f"{self._file} of --servers names no server: write an address on each line.")
        self._read = tuple(named)
        for name in named or [SERVER]:
            if name not in self._known:
                self._known[name] = ComfyUI(name, self._options.header, self._options.patience)
        return list({self._known[name].address: self._known[name] for name in named or [SERVER]}.values())

    def changed(self) -> list[ComfyUI] | None:
        """Those of now, None where they are those of before. A file that is being written is left for later."""
        if self._file is None:
            return None
        before = self._read
        try:
            now = self.now()
        except (BatchError, WayError):
            return None
        return None if self._read == before else now


def read_workflow(path: Path) -> dict:
    try:
        workflow = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BatchError(f"{path} is no workflow that can be read ({error}).") from error
    if not isinstance(workflow, dict):
        raise BatchError(f"{path} is no workflow of ComfyUI.")
    return workflow


def ask(servers: Sequence[ComfyUI]) -> list[tuple[ComfyUI, dict | Away | Refused]]:
    """What each server says of its nodes, or why it does not, all asked at once."""

    def one(server: ComfyUI) -> dict | Away | Refused:
        try:
            return server.object_info()
        except (Away, Refused) as error:
            return error

    with ThreadPoolExecutor(len(servers)) as threads:
        return list(zip(servers, threads.map(one, servers)))


def prepare(options: argparse.Namespace, infos: Sequence[dict]) -> tuple[Template, list[Task], State, Needs]:
    """Reads and checks everything, by the first server that knows all of it. Raises BatchError, WorkflowError."""
    rows = read_rows(options.table)
    workflow = read_workflow(options.workflow)
    table = options.table.resolve()
    state = State(table.with_name(f"{table.stem}.batch.json"), options.again)
    base = table if table.is_dir() else table.parent
    problem: Exception | None = None
    for number, info in enumerate(infos):
        try:
            template = Template(workflow, info)
            tasks = make_tasks(rows, template, base, options.into, state, options.takes)
        except (BatchError, WorkflowError) as error:
            problem = problem or error
        else:
            first = [info, *infos[:number], *infos[number + 1 :]]
            return template, tasks, state, Needs(all_needs(tasks), first)
    raise problem or BatchError("No server answers.")


def fit(answers: Sequence[tuple[ComfyUI, dict | Away | Refused]], needs: Needs) -> list[ComfyUI]:
    """The servers that lack nothing, and those that do not answer yet; none where no other is left.

    What the rest lacks is told.
    """
    found, usable = [], False
    for server, answer in answers:
        lacking = None
        if isinstance(answer, dict):
            try:
                lacking = needs.lacking(server, answer)
                usable |= lacking is None
            except (Away, Refused) as error:
                print(unheard(server, error, True), file=sys.stderr)
        if lacking is None:
            found.append(server)
        else:
            print(lacking, file=sys.stderr)
    return found if usable else []


def unheard(server: ComfyUI, error: Away | Refused, others: bool) -> str:
    if isinstance(error, (Denied, Refused)):
        return str(error)
    cure = "it gets rows once it is there." if others else "start it, or give --server."
    return f"ComfyUI does not answer at {server.address} ({error}): {cure}"


def main(given: list[str] | None = None) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # names that an old console of Windows cannot show
    options = arguments(given)
    servers = Servers(options)
    python = None
    try:
        if not 1 <= options.takes <= MOST:
            raise BatchError(f"--takes is {options.takes}, but it must be 1 to {MOST}.")
        if options.measure or options.takes > 1:
            python = measuring.check()
        answers = ask(servers.now())
        infos = [answer for _, answer in answers if isinstance(answer, dict)]
        for server, answer in answers:
            if not isinstance(answer, dict):
                print(unheard(server, answer, bool(infos)), file=sys.stderr)
        if not infos:
            return 2
        template, tasks, state, needs = prepare(options, infos)
    except (BatchError, WorkflowError, WayError) as error:
        print(error, file=sys.stderr)
        return 2
    seats = fit(answers, needs)
    if not seats:
        return 2
    before = sum(task.done for task in tasks)
    names = sorted({f"{one.title}.{one.input}" for one in template.fields for task in tasks if _fills(task, one)})
    print(f"{len(tasks)} rows, {before} of them done before; they fill in {', '.join(names) or 'nothing'}.", flush=True)
    if options.check:
        return 0
    folder = options.table.resolve()
    results = None
    if servers.several or options.results or python:
        results = Results((options.results or folder.with_name(f"{folder.stem}_results")).resolve(), state)
        print(f"The files come into {results.folder}.", flush=True)
    live, width = sys.stdout.isatty(), shutil.get_terminal_size().columns - 1
    farm = Farm(template, tasks, state, folder.stem, needs, results, options.patience)
    try:
        state.take()
    except BatchError as error:
        print(error, file=sys.stderr)
        return 2
    code = 0
    try:
        farm.run(
            seats,
            say=lambda line: print(("\r\x1b[K" if live else "") + line, flush=True),
            show=lambda line: print(f"\r\x1b[K{line[:width]}", end="", flush=True) if live else None,
            look=servers.changed,
        )
        if python and results:
            measuring.bring_the_rest(tasks, seats, results, farm.note)
            measuring.bring_the_named(tasks, seats, results.folder)
    except KeyboardInterrupt:
        print("\nStopped. What runs in ComfyUI runs on; the same command goes on from here.")
        code = 130
    except BatchError as error:
        print(f"\n{error}", file=sys.stderr)
        code = 2
    finally:
        state.release()
    print(("\r\x1b[K" if live else "") + "\n" + summary(tasks, servers.several), flush=True)
    if python and results and not code:
        code = measuring.measure(python, tasks, results)
    return code or int(any(not task.done for task in tasks))


def _fills(task: Task, one: Field) -> bool:
    return one.key in task.values or one.key in task.uploads


if __name__ == "__main__":
    sys.exit(main())
