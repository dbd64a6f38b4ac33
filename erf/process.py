"""Set-up of a process: signals, streams and limits, before a library is loaded; and requests to stop by a signal."""

import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType, TracebackType
from typing import NoReturn

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Signals that ask a command to end; SIGHUP is sent when a terminal is closed."""

_LEAST_MEMORY = 2**29
"""Bytes of address space below which numerical libraries hang or abort while they are loaded."""


def prepare() -> None:
    """Make the process ready for a command, or end it with one line and exit code 2 where none could work."""
    ask_for_large_pages()
    _open_streams()
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _end)
    _check_folder()
    _check_memory()


def ask_for_large_pages() -> None:
    """Let PyTorch ask Linux for pages of 2 MB: clearing pages of 4 KB takes a tenth of a full-size pass on a CPU.

    PyTorch reads the variable at its first allocation. A value that is set already is left alone.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def _open_streams() -> None:
    """Take closed streams for empty: else the next file that is opened would receive what is printed."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            nothing = os.open(os.devnull, os.O_RDWR)
            if nothing != number:
                os.dup2(nothing, number)
                os.close(nothing)
            stream = open(number, mode, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    """End the command as an exception does, so that everything is cleaned up."""
    signal.signal(number, signal.SIG_IGN)  # a second one would cut that short
    _complain("interrupted; no incomplete result was written")
    sys.exit(128 + number)


def _check_folder() -> None:
    try:
        os.getcwd()
    except OSError as error:
        _complain(f"the working folder cannot be used ({error.strerror}); change to one that exists")
        sys.exit(2)


def _check_memory() -> None:
    try:
        import resource
    except ImportError:  # systems without such limits
        return
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < _LEAST_MEMORY:
        _complain(
            f"this process may take {limit // 2**20} MB of memory (ulimit -v), expected at least "
            f"{_LEAST_MEMORY // 2**20} to load libraries and 4096 for a network; raise the limit"
        )
        sys.exit(2)


def _complain(message: str) -> None:
    with suppress(OSError):  # stderr may be closed
        os.write(2, f"erf: {message}\n".encode())


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
