"""A server as a batch sees it: what it was given, and whether it answers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .server import Away, ComfyUI, Denied, Refused, files, outcome, seconds
from .state import CANCELLED, DONE, FAILED, OPEN, Task

if TYPE_CHECKING:
    from .farm import Farm

AHEAD = 2  # tasks in ComfyUI's queue at once: it never waits for us, and others' tasks get in between
POLL = 0.5  # seconds
AGAIN = 10  # seconds until a server that lacks something is asked once more


class Unfit(Away):
    """The server answers but lacks what the rows need."""


@dataclass
class Job:
    """A task in a server's queue. outages: of the server when it was queued; -1 where nobody watched since."""

    task: Task
    outages: int = -1


class Seat:
    """A server and its jobs, by the ids of their prompts, in the order in which they were queued.

    ghosts: jobs that others were given while it was silent, and how far each was blamed for that.
    there: it answers, and has what the rows need.  leaving: it is to be asked no more.
    """

    def __init__(self, server: ComfyUI, farm: Farm):
        self.server, self.farm = server, farm
        self.jobs: dict[str, Job] = {}
        self.ghosts: dict[str, tuple[Task, int]] = {}
        self.there = self.leaving = False
        self.outages = 0
        self._silent = False  # and that has been said
        self._heard = time.monotonic()
        self._ask_from = 0.0

    def attend(self) -> None:
        """Looks after the server until the batch has ended."""
        while not (self.farm.ended or self.leaving):
            if time.monotonic() >= self._ask_from:
                try:
                    self._turn()
                except (Away, Refused) as error:
                    self._is_away(error)
            self.farm.rest()
        if self.leaving:
            self.there = False
            self._release(f"{self.server.address} is gone")
        elif self.farm.stopped:
            self._withdraw()

    def _turn(self) -> None:
        if not self.there:
            lacking = self.farm.needs.lacking(self.server)
            if lacking:
                raise Unfit(lacking)
        running, pending = self.server.queued()
        self._heard = time.monotonic()
        if not self.there and self._silent and not self.farm.alone:
            self.farm.say(f"{self.server.address} is back.")
        self.there, self._silent = True, False
        self._lay_ghosts(running, pending)
        for prompt_id, job in list(self.jobs.items()):
            self._look(prompt_id, job, running, pending)
        while (given := self.farm.take(self)) is not None:
            self._queue(*given)
        if self.farm.wants_back(self):
            self._hand_back(pending)

    def _is_away(self, error: Exception) -> None:
        if not self._silent:
            self.outages += 1
            if isinstance(error, Unfit):
                self.farm.say(str(error))
            else:
                why = error if isinstance(error, Denied) else f"ComfyUI does not answer ({error});"
                self.farm.say(f"{why} waiting for it at {self.server.address}.")
        self._silent, self.there = True, False
        self._ask_from = time.monotonic() + (AGAIN if isinstance(error, Unfit) else 0)
        silence = time.monotonic() - self._heard
        if silence >= self.farm.patience and self.farm.others(self):
            self._release(f"{self.server.address} has been silent for {silence:.0f} s")

    def _release(self, why: str) -> None:
        """Lets others have its jobs. The one that ran may be why it is silent."""
        front = self._front()
        for prompt_id in list(self.jobs)[::-1]:  # the first in the queue is to be the first again
            name = self.jobs[prompt_id].task.row.name
            self.farm.say(f"{name} goes to another server: {why}.")
            self.farm.give_back(self, prompt_id, blame=prompt_id == front, ghost=True)

    def _front(self) -> str | None:
        """The job that runs, as far as is known: queued to an idle server it does so before anyone looks."""
        running = [prompt_id for prompt_id, job in self.jobs.items() if job.task.record["running"]]
        return next(iter([*running, *self.jobs]), None)

    def _lay_ghosts(self, running: set[str], pending: set[str]) -> None:
        for prompt_id in list(self.ghosts):
            known = prompt_id in running | pending or self.server.entry(prompt_id) is not None
            if self.farm.lay(self, prompt_id, known):
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
                self.farm.began[prompt_id] = time.monotonic()
                self.farm.note(job.task, running=True)
            return
        # In this order: a task that ends in between is in the history by then.
        entry = self.server.entry(prompt_id)
        if entry is not None:
            state, why = outcome(entry, self.farm.titles)
            names = files(entry)
            if state == DONE and self.farm.results is not None:
                try:
                    names = self.farm.results.bring(self.server, job.task, names, self.farm.note)
                except Refused as error:
                    state, why = FAILED, str(error)
            record.update(seconds=seconds(entry), files=names)
            self._end(prompt_id, state, why)
            return
        if record["running"]:  # what was stopped is in the history: the server was restarted between two looks
            self.outages += 1
        if job.outages == self.outages:
            self._end(prompt_id, CANCELLED, "It was taken out of ComfyUI's queue.")
        else:
            self.farm.give_back(self, prompt_id, blame=prompt_id == self._front())

    def _queue(self, prompt_id: str, task: Task) -> None:
        """Puts a task into the queue. Raises Away, with the task noted as queued."""
        try:
            names = {key: self.server.upload(path) for key, path in task.uploads.items()}
            prompt, workflow = self.farm.template.filled(
                {**task.values, **names}, f"{self.farm.folder}/{task.row.name}"
            )
            self.server.queue(prompt, prompt_id, workflow)
        except Refused as error:
            self._end(prompt_id, FAILED, str(error))
        except Away:
            self.jobs[prompt_id].outages = -1
            raise
        except OSError as error:
            self._end(prompt_id, FAILED, f"{error.filename} cannot be read ({error.strerror}).")

    def _end(self, prompt_id: str, state: str, why: str) -> None:
        if state == FAILED and self.farm.elsewhere(self, prompt_id, why):
            return
        with self.farm.changed:
            self.farm.end(self.jobs.pop(prompt_id).task, state, why, self.server.address)

    def _hand_back(self, pending: set[str]) -> None:
        """Gives a row that waits here to a server that has none."""
        waiting = [prompt_id for prompt_id in self.jobs if prompt_id in pending]
        for prompt_id in self._taken_out(waiting[-1:]):
            self.farm.give_back(self, prompt_id)

    def _withdraw(self) -> None:
        """Takes what does not run yet out of ComfyUI's queue."""
        try:
            running, _ = self.server.queued()
            taken = self._taken_out([prompt_id for prompt_id in self.jobs if prompt_id not in running])
        except (Away, Refused):
            return
        for prompt_id in taken:
            self.farm.note(self.jobs[prompt_id].task, state=OPEN)

    def _taken_out(self, prompt_ids: list[str]) -> list[str]:
        """Takes prompts out of the queue: those that had not started by then."""
        if not prompt_ids:
            return []
        self.server.cancel(prompt_ids)
        left = set().union(*self.server.queued())
        return [one for one in prompt_ids if one not in left and self.server.entry(one) is None]
