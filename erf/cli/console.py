"""Console functions shared by the commands: one-line errors, progress, and parsing of options."""

import ast
import errno
import math
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from erf.cli.remedies import message_of
from erf.errors import ErfError, InputError
from erf.text import one_line, printable

if TYPE_CHECKING:
    from rich.console import RenderableType

BAD_INPUT = 2
SOME_SKIPPED = 3
INTERNAL = 70
INTERRUPTED = 130

_NO_MEMORY = re.compile("allocate memory|failed to map segment|out of memory", re.IGNORECASE)


@contextmanager
def reported_errors() -> Iterator[None]:
    """End the command with one line and exit code 2 on errors that the user can fix."""
    try:
        yield
    except ErfError as error:
        fail(message_of(error))
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


def parse_numbers(option: str, text: str, count: int = 0) -> tuple[float, ...]:
    """Parse numbers separated by commas, `count` of them if it is not 0; none from an empty text.

    Raises:
        InputError: a part is no finite number, or there are more or fewer.
    """
    parts = parse_list(text)
    try:
        numbers = tuple(float(part) for part in parts)
    except ValueError:
        numbers = ()
    if len(numbers) < len(parts) or not all(map(math.isfinite, numbers)) or (count and parts and len(parts) != count):
        raise InputError(f"{option} '{text}' not understood; expected {count or 'some'} numbers separated by commas")
    return numbers


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
