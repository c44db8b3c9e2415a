"""One table over one or more ComfyUIs: a row goes to whoever is free, and to another one where its server is lost.

Every server has a thread of its own (`Seat`), the only one that talks to it: one that hangs stops no other. What they
share is here, behind one lock.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence

from .needs import Needs
from .report import clock
from .results import Results
from .rows import Template
from .seat import AHEAD, POLL, Job, Seat
from .server import ComfyUI
from .state import DONE, FAILED, OPEN, QUEUED, State, Task

LOST = 2  # times that ComfyUI may end while it runs a row until that row is left out
LEAVING = 10  # seconds for all servers to give back what waits, once the batch is stopped


class Farm:
    """The tasks of one table, handed out until all have ended.

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
        self._error: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self._say: Callable[[str], None] = print

    # What the main thread does

    def run(
        self,
        servers: Sequence[ComfyUI],
        say: Callable[[str], None],
        show: Callable[[str], None],
        look: Callable[[], Sequence[ComfyUI] | None] = lambda: None,
    ) -> None:
        """say: prints a line that stays.  show: writes one that the next takes the place of.

        look: the servers that there are now, or None where they are as before.  Raises BatchError.
        """
        self._say = say
        self._take_over(servers)
        try:
            while not self.ended:
                with self.changed:
                    show(self._status())
                    self.changed.wait(POLL)
                now = look()
                if now is not None:
                    self._now_there(now)
            self._join(2 * POLL)  # one that waits for a silent server is left alone
        except KeyboardInterrupt:
            self.stop()
            self._join(LEAVING)
            raise
        if self._error is not None:
            raise self._error

    def stop(self, error: BaseException | None = None) -> None:
        with self.changed:
            self.stopped, self._error = True, self._error or error
            self.changed.notify_all()

    def _join(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _take_over(self, servers: Sequence[ComfyUI]) -> None:
        """Starts on what a batch before has left: its rows may have ended on these servers."""
        with self.changed:
            seats = [self._seat(server) for server in servers]
            places = {seat.server.address: seat for seat in seats}
            for task in self.tasks:
                for address, prompt_id in task.record.pop("ghosts", []):
                    if address in places:
                        places[address].ghosts[prompt_id] = task, 0
            for task in self.left:
                seat = places.get(task.record.get("server", servers[0].address))
                if seat is None:
                    self.note(task, state=OPEN)
                    self.todo.append(task)
                else:
                    seat.jobs[task.record["id"]] = Job(task)
            self.todo.sort(key=lambda task: task.row.number)
            for seat in seats:
                self._start(seat)

    def _now_there(self, servers: Sequence[ComfyUI]) -> None:
        with self.changed:
            known = {seat.server.address: seat for seat in self.seats if not seat.leaving}
            wanted = {server.address: server for server in servers}
            for address, seat in known.items():
                seat.leaving = address not in wanted
            for address, server in wanted.items():
                if address not in known:
                    self._start(self._seat(server))

    def _seat(self, server: ComfyUI) -> Seat:
        seat = Seat(server, self)
        self.seats.append(seat)
        return seat

    def _start(self, seat: Seat) -> None:
        thread = threading.Thread(target=self._attend, args=(seat,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _attend(self, seat: Seat) -> None:
        try:
            seat.attend()
        except BaseException as error:  # told by the main thread
            self.stop(error)

    # What the seats ask for

    @property
    def alone(self) -> bool:
        return len(self.seats) == 1

    @property
    def ended(self) -> bool:
        """Whether nothing is left to be done, or the batch is stopped."""
        with self.changed:
            return self.stopped or not (self.todo or any(seat.jobs for seat in self.seats))

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

    def _status(self) -> str:
        jobs = [job for seat in self.seats for job in seat.jobs.values()]
        parts = []
        for task in (job.task for job in jobs if job.task.record["running"]):
            since = self.began.get(task.record["id"])
            parts.append(f"{task.row.name} runs" + ("" if since is None else f", {clock(time.monotonic() - since)}"))
        times = [task.record["seconds"] for task in self.tasks if task.record.get("seconds")]
        remain, hands = len(self.todo) + len(jobs), max(1, sum(seat.there for seat in self.seats))
        about = f", about {clock(remain * sum(times) / len(times) / hands)}" if times and remain else ""
        return "; ".join([*parts, f"{remain} to go{about}"])


def all_needs(tasks: Iterable[Task]) -> frozenset:
    """What servers must have for the rows that are not done."""
    return frozenset().union(*(task.needs for task in tasks if not task.done))
