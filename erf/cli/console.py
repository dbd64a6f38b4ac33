"""Console functions shared by the commands: one-line errors, progress, and parsing of options."""

import ast
import errno
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from erf.cli.remedies import in_words
from erf.errors import ErfError, InputError
from erf.process import SIGNALS
from erf.text import one_line, printable

if TYPE_CHECKING:
    from rich.console import RenderableType

BAD_INPUT = 2
SOME_SKIPPED = 3
INTERNAL = 70
INTERRUPTED = 130

_STAGES = {"sides": "images looked at for their side", "images": "images", "maps": "maps written"}
"""Display names of a run's stages; those of a training are readable already."""

_QUIET_SECONDS = 5.0
"""Seconds between lines of progress if the output is not a terminal."""


_NO_MEMORY = re.compile("allocate memory|failed to map segment|out of memory", re.IGNORECASE)


class StopRequest:
    """Request by a signal to stop a run, within a `with` block; calling it tells whether a signal has arrived.

    A second signal ends the run at once.
    """

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> bool:
        return self.number > 0

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():
            # Ignored signals stay ignored, such as SIGHUP under nohup.
            heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in getattr(self, "_before", {}).items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.number:
            for heeded in self._before:  # one more signal would interrupt the clean-up
                signal.signal(heeded, signal.SIG_IGN)
            raise KeyboardInterrupt
        self.number = number


@contextmanager
def reported_errors() -> Iterator[None]:
    """End the command with one line and exit code 2 on errors that the user can fix."""
    try:
        yield
    except ErfError as error:
        fail(in_words(error))
    except KeyboardInterrupt:
        complain("interrupted; no incomplete result was written")
        raise typer.Exit(INTERRUPTED) from None


def report_unforeseen(error: Exception) -> int:
    """Print one line for an unexpected error; return the exit code."""
    found = one_line(str(error))[:200] or type(error).__name__
    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        complain(f"out of memory ({found}); use a smaller --size, or a machine or limit with more")
        return BAD_INPUT
    if isinstance(error, OSError) and error.errno:
        from erf.storage.files import remedy

        where = f"{error.filename}: " if error.filename else ""
        complain(f"{where}{os.strerror(error.errno)}; {remedy(error)}")
        return BAD_INPUT
    complain(f"internal error ({type(error).__name__}: {found}); please report it with what ERF_DEBUG=1 shows")
    return INTERNAL


def say(words: str) -> None:
    """Print a line on standard output."""
    with _standard_output():
        _write(f"{printable(words)}\n")


def display(*renderables: "RenderableType") -> None:
    """Print rich renderables, such as tables, whose texts must be printable already."""
    # Importing rich takes 0.1 s, which would slow down `erf --help`.
    from rich.console import Console

    console = Console()
    with _standard_output():
        with console.capture() as drawn:
            for one in renderables:
                console.print(one)
        _write(drawn.get())


def _write(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


@contextmanager
def _standard_output() -> Iterator[None]:
    """End the command if standard output fails; silently if the reader closed a pipe, as other tools do."""
    try:
        yield
    except OSError as error:
        with suppress(OSError):  # flushing the buffer at exit would fail again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno == errno.EPIPE:
            raise typer.Exit(128 + signal.SIGPIPE) from None
        fail(f"standard output cannot be written ({error.strerror}); what was to be written to files is there")


def complain(message: str, color: str = "red") -> None:
    """Print one line on standard error; a failure to print it is ignored."""
    with suppress(OSError):
        typer.secho(f"erf: {one_line(message)}", fg=color, err=True)


def fail(message: str) -> NoReturn:
    """Print an error in one line and end the command with exit code 2."""
    complain(message)
    raise typer.Exit(BAD_INPUT)


def warn(message: str) -> None:
    """Print a warning in one line and continue."""
    complain(message, "yellow")


def parse_size(text: str) -> tuple[int, int]:
    """Parse (height, width) from a text such as 3328x2560; `InputError` if it has another form."""
    match = re.fullmatch(r"(\d{1,9})[x×](\d{1,9})", text.strip().lower())
    if not match:
        raise InputError(f"size '{text}' not understood; expected HEIGHTxWIDTH, such as 3328x2560")
    return int(match[1]), int(match[2])


def parse_list(text: str) -> tuple[str, ...]:
    """Split a text at commas, without empty parts."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def parse_options(texts: list[str], option: str = "--model-arg") -> dict[str, Any]:
    """Parse options of a network or method from texts NAME=VALUE.

    Args:
        texts: one NAME=VALUE each; a value that is not a Python literal is a string.
        option: name of the command-line option, for messages.

    Raises:
        InputError: a text has another form, or NAME is `seed`.
    """
    options = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (equals and all(part.isidentifier() for part in name.split("."))) or name == "seed":
            hint = "use --seed" if name == "seed" else "expected NAME=VALUE, such as alpha=1"
            raise InputError(f"{option} '{text}' not understood; {hint}")
        try:
            options[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[name] = value
        except (MemoryError, RecursionError) as error:
            raise InputError(f"{option} {name}: a value nested too deeply; expected a number, text or list") from error
    return options


@contextmanager
def busy(words: str) -> Iterator[None]:
    """Show a status line on a terminal during a slow step; show nothing elsewhere."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(words):
        yield


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
