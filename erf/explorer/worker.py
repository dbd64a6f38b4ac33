"""One thread that computes, so that networks are used by one pass at a time; newer requests replace older ones."""

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from erf.gradients.graph import Cancelled

T = TypeVar("T")

_COMPUTING = threading.Lock()
"""Held by the pass that runs: two explorers of a process may have the same network, whose modes a pass changes."""

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
        """Run the work, and pass its result or exception on; nothing is done for a client that has gone."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self.work(lambda: self.superseded.is_set() or is_stopped())
        except BaseException as error:  # whatever happens belongs to whoever waits
            self.future.set_exception(SupersededError() if self.superseded.is_set() else _harmless(error))
        else:
            self.future.set_result(result)

    def give_up(self) -> None:
        """Tell whoever waits that the work will not be done."""
        if self.future.set_running_or_notify_cancel():
            self.future.set_exception(SupersededError())


def _harmless(error: BaseException) -> Exception:
    """Return an error, or one in place of an exit or a cancellation, which would end whoever waits."""
    return error if isinstance(error, Exception) else RuntimeError(f"the network raised {type(error).__name__}")


class Worker:
    """The thread; work without a client waits until nothing else does, and makes way for anything else."""

    def __init__(self) -> None:
        self._jobs: deque[Job[Any]] = deque()
        self._idle: dict[str, tuple[Callable[[Cancelled], Any], float]] = {}
        self._last = time.monotonic()
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
            other.give_up()
        return job.future

    def when_idle(self, name: str, work: Callable[[Cancelled], Any], pause: float = 0.0) -> None:
        """Do something when nothing is asked for; its errors are ignored, as nobody waits for it.

        Args:
            name: name of the work; what was to be done under the same name is given up.
            work: what to do; it is cancelled by the next request.
            pause: seconds without a request to wait for.
        """
        with self._changed:
            self._idle[name] = work, pause
            self._changed.notify()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def is_stopped(self) -> bool:
        return self._is_stopped

    def stop(self) -> None:
        """End the thread; waits for the pass that runs to notice."""
        with self._changed:
            self._is_stopped = True
            waiting, self._jobs = list(self._jobs), deque()
            self._idle.clear()
            self._changed.notify()
        for job in waiting:
            job.give_up()
        self._thread.join()

    def _is_wanted_elsewhere(self) -> bool:
        return self._is_stopped or bool(self._jobs)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._running = None
                while not (self._jobs or self._is_stopped or self._left() <= 0):
                    self._changed.wait(self._left() if self._idle else None)
                if self._is_stopped:
                    return
                self._running = self._jobs.popleft() if self._jobs else None
                spare = None if self._running else self._idle.pop(self._next())[0]
            with _COMPUTING:
                if self._running:
                    self._running.run(self.is_stopped)
                    self._last = time.monotonic()
                elif spare:
                    Job(spare, "").run(self._is_wanted_elsewhere)

    def _left(self) -> float:
        """Return the seconds until something may be done that nobody waits for."""
        return self._last + self._idle[self._next()][1] - time.monotonic() if self._idle else float("inf")

    def _next(self) -> str:
        """Return the name of what may be done first."""
        return min(self._idle, key=lambda name: self._idle[name][1])
