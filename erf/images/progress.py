"""Progress of a run: the function that is called, and its display."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from erf.text import one_line

Progress = Callable[[str, int, int], None]
"""Function that is called with a stage, the number done, and the total."""

_STAGES = {"sides": "images looked at for their side", "images": "images", "maps": "maps written"}
"""Display names of a run's stages; those of a training are readable already."""

_QUIET_SECONDS = 5.0
"""Seconds between lines of progress if the output is not a terminal."""


class ProgressReport:
    """Progress display, called by the engine: a bar with rate and time left, or occasional lines without a terminal."""

    def __init__(self, label: str, quiet: bool = False) -> None:
        # Importing rich takes 0.1 s, which would slow down `erf --help`.
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        label = one_line(label)
        self._label, self._quiet = label, quiet
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._task = None if self._bar.disable else self._bar.add_task(label, total=None, rate="")
        self._stage, self._first = "", 0
        self._started = self._previous = self._last_line = time.monotonic()

    def __enter__(self) -> "ProgressReport":
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def note(self, words: str) -> None:
        """Print a permanent line."""
        if not self._quiet:
            line = f"{self._label}: {one_line(words)}"
            self._bar.console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage.split(",", maxsplit=1)[0] != self._stage.split(",")[0] or done == 1:
            self._started, self._stage, self._first = self._previous, stage, done - 1
        self._previous = now
        pace = (now - self._started) / (done - self._first)
        words = f"{self._label}: {_STAGES.get(stage, stage)}"
        rate = f"{pace:.2f} s each" if pace >= 0.1 else f"{1 / max(pace, 1e-9):.0f} per s"
        if self._task is not None:
            self._bar.update(self._task, description=words, completed=done, total=total, rate=rate)
        elif not self._quiet and (now - self._last_line > _QUIET_SECONDS or done == total):
            self._last_line = now
            with suppress(OSError):  # standard error is closed
                print(
                    f"{words} {done}/{total}, {rate}, {pace * (total - done):.0f} s left", file=sys.stderr, flush=True
                )
