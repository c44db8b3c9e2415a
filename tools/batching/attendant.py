"""Looking after one server of a batch: what it is given, what came of it, and whether it answers."""

from __future__ import annotations

import time

from .server import Away, Denied, Refused, files, outcome, seconds
from .shared import Job, Seat, Shared
from .state import CANCELLED, DONE, FAILED, OPEN, Task

AGAIN = 10  # seconds until a server that lacks something is asked once more


class Unfit(Away):
    """The server answers but lacks what the rows need."""


class Attendant:
    """The thread of a seat, the only one that talks to its server."""

    def __init__(self, seat: Seat, shared: Shared):
        self.seat, self.server, self.shared = seat, seat.server, shared
        self._silent = False  # and that has been said
        self._heard = time.monotonic()
        self._ask_from = 0.0

    def attend(self) -> None:
        """Looks after the server until the batch has ended."""
        while not (self.shared.ended or self.seat.leaving):
            if time.monotonic() >= self._ask_from:
                try:
                    self._turn()
                except (Away, Refused) as error:
                    self._is_away(error)
            self.shared.rest()
        if self.seat.leaving:
            self.seat.there = False
            self._release(f"{self.server.address} is gone")
        elif self.shared.stopped:
            self._withdraw()

    def _turn(self) -> None:
        if not self.seat.there:
            lacking = self.shared.needs.lacking(self.server)
            if lacking:
                raise Unfit(lacking)
        running, pending = self.server.queued()
        self._heard = time.monotonic()
        if not self.seat.there and self._silent and not self.shared.alone:
            self.shared.say(f"{self.server.address} is back.")
        self.seat.there, self._silent = True, False
        self._lay_ghosts(running, pending)
        for prompt_id, job in list(self.seat.jobs.items()):
            self._look(prompt_id, job, running, pending)
        while (given := self.shared.take(self.seat)) is not None:
            self._queue(*given)
        if self.shared.wants_back(self.seat):
            self._hand_back(pending)

    def _is_away(self, error: Exception) -> None:
        if not self._silent:
            self.seat.outages += 1
            if isinstance(error, Unfit):
                self.shared.say(str(error))
            else:
                why = error if isinstance(error, Denied) else f"ComfyUI does not answer ({error});"
                self.shared.say(f"{why} waiting for it at {self.server.address}.")
        self._silent, self.seat.there = True, False
        self._ask_from = time.monotonic() + (AGAIN if isinstance(error, Unfit) else 0)
        silence = time.monotonic() - self._heard
        if silence >= self.shared.patience and self.shared.others(self.seat):
            self._release(f"{self.server.address} has been silent for {silence:.0f} s")

    def _release(self, why: str) -> None:
        """Lets others have its jobs. The one that ran may be why it is silent."""
        front = self._front()
        for prompt_id in list(self.seat.jobs)[::-1]:  # the first in the queue is to be the first again
            name = self.seat.jobs[prompt_id].task.row.name
            self.shared.say(f"{name} goes to another server: {why}.")
            self.shared.give_back(self.seat, prompt_id, blame=prompt_id == front, ghost=True)

    def _front(self) -> str | None:
        """The job that runs, as far as is known: queued to an idle server it does so before anyone looks."""
        running = [prompt_id for prompt_id, job in self.seat.jobs.items() if job.task.record["running"]]
        return next(iter([*running, *self.seat.jobs]), None)

    def _lay_ghosts(self, running: set[str], pending: set[str]) -> None:
        for prompt_id in list(self.seat.ghosts):
            known = prompt_id in running | pending or self.server.entry(prompt_id) is not None
            if self.shared.lay(self.seat, prompt_id, known):
                continue
            if prompt_id in pending:
                self.server.cancel([prompt_id])
            if prompt_id in running | pending:  # it may have started since
                self.server.interrupt(prompt_id)

    def _look(self, prompt_id: str, job: Job, running: set[str], pending: set[str]) -> None:
        """Notes what came of a job: one that was lost is to do again."""
        record = job.task.record
        if prompt_id in running | pending:
            if prompt_id in running and not record["running"]:
                self.shared.began[prompt_id] = time.monotonic()
                self.shared.note(job.task, running=True)
            return
        # In this order: a task that ends in between is in the history by then.
        entry = self.server.entry(prompt_id)
        if entry is not None:
            state, why = outcome(entry, self.shared.titles)
            names = files(entry)
            if state == DONE and self.shared.results is not None:
                try:
                    names = self.shared.results.bring(self.server, job.task, names, self.shared.note)
                except Refused as error:
                    state, why = FAILED, str(error)
            record.update(seconds=seconds(entry), files=names)
            self._end(prompt_id, state, why)
            return
        if record["running"]:  # what was stopped is in the history: the server was restarted between two looks
            self.seat.outages += 1
        if job.outages == self.seat.outages:
            self._end(prompt_id, CANCELLED, "It was taken out of ComfyUI's queue.")
        else:
            self.shared.give_back(self.seat, prompt_id, blame=prompt_id == self._front())

    def _queue(self, prompt_id: str, task: Task) -> None:
        """Puts a task into the queue. Raises Away, with the task noted as queued."""
        try:
            names = {key: self.server.upload(path) for key, path in task.uploads.items()}
            prompt, workflow = self.shared.template.filled(
                {**task.values, **names}, f"{self.shared.folder}/{task.row.name}"
            )
            self.server.queue(prompt, prompt_id, workflow)
        except Refused as error:
            self._end(prompt_id, FAILED, str(error))
        except Away:
            self.seat.jobs[prompt_id].outages = -1
            raise
        except OSError as error:
            self._end(prompt_id, FAILED, f"{error.filename} cannot be read ({error.strerror}).")

    def _end(self, prompt_id: str, state: str, why: str) -> None:
        if state == FAILED and self.shared.elsewhere(self.seat, prompt_id, why):
            return
        with self.shared.changed:
            self.shared.end(self.seat.jobs.pop(prompt_id).task, state, why, self.server.address)

    def _hand_back(self, pending: set[str]) -> None:
        """Gives a row that waits here to a server that has none."""
        waiting = [prompt_id for prompt_id in self.seat.jobs if prompt_id in pending]
        for prompt_id in self._taken_out(waiting[-1:]):
            self.shared.give_back(self.seat, prompt_id)

    def _withdraw(self) -> None:
        """Takes what does not run yet out of ComfyUI's queue."""
        try:
            running, _ = self.server.queued()
            taken = self._taken_out([prompt_id for prompt_id in self.seat.jobs if prompt_id not in running])
        except (Away, Refused):
            return
        for prompt_id in taken:
            self.shared.note(self.seat.jobs[prompt_id].task, state=OPEN)

    def _taken_out(self, prompt_ids: list[str]) -> list[str]:
        """Takes prompts out of the queue: those that had not started by then."""
        if not prompt_ids:
            return []
        self.server.cancel(prompt_ids)
        left = set().union(*self.server.queued())
        return [one for one in prompt_ids if one not in left and self.server.entry(one) is None]
