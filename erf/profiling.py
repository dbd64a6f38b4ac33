"""Seconds that the stages of a run take, measured where they happen, in whatever thread.

    with profiled() as times:
        erf.compute(model, images)
    print(times.seconds)

Nothing is measured outside `profiled`.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

STAGES = {
    "read": "bytes of a file from disk",
    "hash": "SHA-256 of a file, or of a phantom's pixels",
    "decode": "pixels of a file, or of a phantom",
    "frame": "padding or cropping, normalisation",
    "check": "the self-check on the first image",
    "pass": "forward and backward passes",
    "accumulate": "mean, variance and the sums that are kept of each image",
    "thumbnail": "thumbnail and tissue",
    "write": "rows, maps and progress to disk",
}
"""Stages that are measured, in the order in which an image passes them."""

CONCURRENT = ("read", "hash", "decode", "frame")
"""Stages of the decoding threads, which run concurrently with the others."""


@dataclass
class StageTimes:
    """Seconds and calls by stage."""

    seconds: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, stage: str, seconds: float) -> None:
        with self._lock:
            self.seconds[stage] += seconds  # type: ignore[assignment]  # counters count in any number
            self.calls[stage] += 1


_current: StageTimes | None = None


@contextmanager
def profiled() -> Iterator[StageTimes]:
    """Measure stages as long as the context lasts; one measurement at a time in a process."""
    global _current  # noqa: PLW0603 (threads of decoding share it)
    before, _current = _current, StageTimes()
    try:
        yield _current
    finally:
        _current = before


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Context manager that adds its duration to a stage, if stages are measured."""
    times = _current
    if times is None:
        yield
        return
    start = time.perf_counter()
    try:
        yield
    finally:
        times.add(name, time.perf_counter() - start)
