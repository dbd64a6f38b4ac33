"""One thread that computes, so that networks are used by one pass at a time; newer requests replace older ones."""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")

Cancelled = Callable[[], bool]
"""Function that tells whether a result is still wanted."""

_MOST = 64
"""Most jobs that wait; more are refused."""


class SupersededError(Exception):
    """A newer request of the same client has replaced this one."""


class BusyError(Exception):
    """Too many requests wait."""


@dataclass(eq=False)
class Job(Generic[T]):
    """Work that is asked for."""

    work: Callable[[Cancelled], T]
    client: str
    future: "Future[T]" = field(default_factory=Future)
    superseded: threading.Event = field(default_factory=threading.Event)

    def run(self, is_stopped: Cancelled) -> None:
        """Run the work, and pass its result or exception on."""
        try:
            result = self.work(lambda: self.superseded.is_set() or is_stopped())
        except BaseException as error:  # whatever happens belongs to whoever waits
            self.future.set_exception(SupersededError() if self.superseded.is_set() else error)
        else:
            self.future.set_result(result)


class Worker:
    """The thread; work without a client waits until nothing else does, and makes way for anything else."""

    def __init__(self) -> None:
        self._jobs: deque[Job[Any]] = deque()
        self._idle: deque[Callable[[Cancelled], Any]] = deque()
        self._running: Job[Any] | None = None
        self._changed = threading.Condition()
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="erf-explorer", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Cancelled], T], client: str = "") -> "Future[T]":
        """Ask for a result; the client's earlier requests that are not done are given up.

        Raises:
            BusyError: too many requests wait, or the worker is stopped.
        """
        job = Job(work, client)
        with self._changed:
            for other in [*self._jobs, *([self._running] if self._running else [])] if client else []:
                if other.client == client:
                    other.superseded.set()
            replaced = [other for other in self._jobs if other.superseded.is_set()]
            self._jobs = deque(other for other in self._jobs if not other.superseded.is_set())
            if self._is_stopped or len(self._jobs) >= _MOST:
                raise BusyError
            self._jobs.append(job)
            self._changed.notify()
        for other in replaced:
            other.future.set_exception(SupersededError())
        return job.future

    def when_idle(self, work: Callable[[Cancelled], Any]) -> None:
        """Do something when nothing is asked for; its errors are ignored, as nobody waits for it."""
        with self._changed:
            self._idle.append(work)
            self._changed.notify()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """End the thread; waits for the pass that runs to notice."""
        with self._changed:
            self._is_stopped = True
            waiting, self._jobs = list(self._jobs), deque()
            self._idle.clear()
            self._changed.notify()
        for job in waiting:
            job.future.set_exception(SupersededError())
        self._thread.join()

    def _stopped(self) -> bool:
        return self._is_stopped

    def _is_wanted_elsewhere(self) -> bool:
        return self._is_stopped or bool(self._jobs)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._running = None
                self._changed.wait_for(lambda: self._jobs or self._idle or self._is_stopped)
                if self._is_stopped:
                    return
                self._running = self._jobs.popleft() if self._jobs else None
                spare = None if self._running else self._idle.popleft()
            if self._running:
                self._running.run(self._stopped)
            elif spare:
                Job(spare, "").run(self._is_wanted_elsewhere)
