"""What the servers of a batch share: the rows to be done, which server has which, and what came of each."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from .needs import Needs
from .report import clock
from .results import Results
from .rows import Template
from .server import ComfyUI
from .state import DONE, FAILED, OPEN, QUEUED, State, Task

AHEAD = 2  # tasks in ComfyUI's queue at once: it never waits for us, and others' tasks get in between
POLL = 0.5  # seconds
LOST = 2  # times that ComfyUI may end while it runs a row until that row is left out


@dataclass
class Job:
    """A task in a server's queue. outages: of the server when it was queued; -1 where nobody watched since."""

    task: Task
    outages: int = -1


@dataclass(eq=False)
class Seat:
    """A server and its jobs, by the ids of their prompts, in the order in which they were queued.

    ghosts: jobs that others were given while it was silent, and how far each was blamed for that.
    there: it answers, and has what the rows need.  leaving: it is to be asked no more.
    """

    server: ComfyUI
    jobs: dict[str, Job] = field(default_factory=dict)
    ghosts: dict[str, tuple[Task, int]] = field(default_factory=dict)
    there: bool = False
    leaving: bool = False
    outages: int = 0


class Shared:
    """The rows of one table. `changed` is its lock: every server has a thread of its own.

    needs: what every server must have.  results: where files are brought to; None leaves them on the servers.
    patience: seconds of silence after which a server's rows go to others, if there are any.
    """

    def __init__(
        self,
        template: Template,
        tasks: list[Task],
        state: State,
        folder: str,
        needs: Needs,
        results: Results | None = None,
        patience: float = 60,
    ):
        self.template, self.tasks, self.state, self.folder = template, tasks, state, folder
        self.needs, self.results, self.patience = needs, results, patience
        self.titles = {one.node: one.title for one in template.fields}
        self.todo = [task for task in tasks if not task.done and task.record["state"] != QUEUED]
        for task in self.todo:
            if task.ended:  # to be made once more: with as many tries as at first
                task.record.pop("failed_on", None)
                task.record.pop("lost", None)
        self.left = [task for task in tasks if task.record["state"] == QUEUED]  # by a batch before, at its servers
        self.seats: list[Seat] = []
        self.began: dict[str, float] = {}
        self.changed = threading.Condition(threading.RLock())
        self.stopped = False
        self.error: BaseException | None = None
        self._say: Callable[[str], None] = print

    @property
    def alone(self) -> bool:
        return len(self.seats) == 1

    @property
    def ended(self) -> bool:
        """Whether nothing is left to be done, or the batch is stopped."""
        with self.changed:
            return self.stopped or not (self.todo or any(seat.jobs for seat in self.seats))

    def stop(self, error: BaseException | None = None) -> None:
        with self.changed:
            self.stopped, self.error = True, self.error or error
            self.changed.notify_all()

    def rest(self) -> None:
        with self.changed:
            if not self.ended:
                self.changed.wait(POLL)

    def say(self, line: str) -> None:
        with self.changed:
            self._say(line)

    def take(self, seat: Seat) -> tuple[str, Task] | None:
        """A row for a server that has room, as one of its jobs. What is left at the end is for those that wait."""
        with self.changed:
            room = len(seat.jobs) < AHEAD and not (seat.jobs and len(self.todo) <= self._idle(seat))
            task = next((one for one in self.todo if self._suits(one, seat)), None)
            if self.stopped or task is None or not room:
                return None
            self.todo.remove(task)
            record, prompt_id = task.record, str(uuid.uuid4())
            self.note(
                task, state=QUEUED, id=prompt_id, server=seat.server.address, lost=record.get("lost", 0), running=False,
                seconds=None, files=[], why="",
            )  # fmt: skip
            seat.jobs[prompt_id] = Job(task, seat.outages)
            return prompt_id, task

    def wants_back(self, seat: Seat) -> bool:
        """Whether another waits for a row and this one has more than it runs."""
        with self.changed:
            return len(seat.jobs) > 1 and self._idle(seat) > len(self.todo)

    def others(self, seat: Seat) -> bool:
        """Whether there is another server that answers."""
        return any(other.there for other in self.seats if other is not seat)

    def _suits(self, task: Task, seat: Seat) -> bool:
        return task.record.get("failed_on") != seat.server.address or not self.others(seat)

    def _idle(self, seat: Seat) -> int:
        return sum(other.there and not other.jobs for other in self.seats if other is not seat)

    def give_back(self, seat: Seat, prompt_id: str, blame: bool = False, ghost: bool = False) -> None:
        """A job of a seat is to be done by whoever is free. blame: its server may have ended because of it.

        ghost: the server may have it still.
        """
        with self.changed:
            task = seat.jobs.pop(prompt_id).task
            lost = task.record["lost"] + blame
            if ghost:
                seat.ghosts[prompt_id] = task, int(blame)
                self.note(task, ghosts=[*task.record.get("ghosts", []), [seat.server.address, prompt_id]])
            if lost >= LOST:
                self.note(task, lost=lost)
                self.end(task, FAILED, f"ComfyUI ended {LOST} times while it ran.")
            else:
                self.note(task, lost=lost, state=OPEN)
                self.todo.insert(0, task)
            self.changed.notify_all()

    def elsewhere(self, seat: Seat, prompt_id: str, why: str) -> bool:
        """Whether a job that failed is to be tried on another server: once, for its card may be what was wrong."""
        with self.changed:
            task = seat.jobs[prompt_id].task
            if "failed_on" in task.record or not self.others(seat):
                return False
            del seat.jobs[prompt_id]
            self.note(task, state=OPEN, failed_on=seat.server.address, why=why)
            self.todo.append(task)
            self.say(f"{task.row.name} failed on {seat.server.address} and is tried once more on another one: {why}")
            self.changed.notify_all()
            return True

    def lay(self, seat: Seat, prompt_id: str, known: bool) -> bool:
        """A server that was lost is back: whether a job that it was taken from is its own again.

        known: the server has it still, so that it did not end because of it.
        """
        with self.changed:
            task, blame = seat.ghosts.pop(prompt_id)
            ghosts = [one for one in task.record.get("ghosts", []) if one[1] != prompt_id]
            self.note(task, ghosts=ghosts, lost=task.record.get("lost", 0) - blame * known)
            if not known or task not in self.todo:
                return False
            self.todo.remove(task)
            self.note(task, state=QUEUED, id=prompt_id, server=seat.server.address, running=False)
            seat.jobs[prompt_id] = Job(task)
            return True

    def note(self, task: Task, **what) -> None:
        with self.changed:
            task.record.update(what, name=task.row.name, row=task.row.number)
            self.state.rows[task.key] = task.record
            self.state.save()

    def end(self, task: Task, state: str, why: str, where: str = "") -> None:
        with self.changed:
            self.note(task, state=state, why=why)
            record = task.record
            took = "" if record.get("seconds") is None else f" in {clock(record['seconds'])}"
            by = f" on {where}" if where and not self.alone else ""
            ended = sum(one.ended for one in self.tasks)
            what = ", ".join(record["files"]) if state == DONE else why
            self.say(f"[{ended}/{len(self.tasks)}] {task.row.name} {state}{by}{took}: {what or 'no file'}")
            self.changed.notify_all()
