"""One table over one or more ComfyUIs: a row goes to whoever is free, and to another one where its server is lost.

Every server has a thread of its own (`Attendant`), the only one that talks to it: one that hangs stops no other.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

from .attendant import Attendant
from .report import clock
from .server import ComfyUI
from .shared import POLL, Job, Seat, Shared
from .state import OPEN, Task

LEAVING = 10  # seconds for all servers to give back what waits, once the batch is stopped


class Farm(Shared):
    """The tasks of one table, handed out until all have ended; what the main thread does."""

    _threads: list[threading.Thread]

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
        self._say, self._threads = say, []
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
        if self.error is not None:
            raise self.error

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
        seat = Seat(server)
        self.seats.append(seat)
        return seat

    def _start(self, seat: Seat) -> None:
        thread = threading.Thread(target=self._attend, args=(seat,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _attend(self, seat: Seat) -> None:
        try:
            Attendant(seat, self).attend()
        except BaseException as error:  # told by the main thread
            self.stop(error)

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
