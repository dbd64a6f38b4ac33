"""Atomic writing of files, to a disk that may fill up.

HDF5 crashes the interpreter when it closes a file that it could not write. So it writes to a `PatientFile`, which keeps
the first error and reports all later writes as successful; the error is raised between HDF5's calls instead.
"""

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from erf.errors import LockedError, OutputError, OutputExistsError

if TYPE_CHECKING:
    from typing_extensions import Buffer

_FULL = (errno.ENOSPC, errno.EDQUOT)
_REMEDIES = {
    **dict.fromkeys(_FULL, "free some space"),
    errno.EFBIG: "the disk or the limit of file sizes does not allow more",
    errno.ENOENT: "choose a folder that exists",
    errno.ENOTDIR: "choose a folder that exists",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "choose a folder that exists",
    errno.EMFILE: "too many files are open at once; raise the limit of the shell",
    errno.ENFILE: "too many files are open on this machine; close some",
}


def unwritable(path: Path | str, error: Exception, verb: str = "written") -> OutputError:
    """Build the error for a file that could not be written, with cause and remedy."""
    number = error.errno if isinstance(error, OSError) else None
    found = os.strerror(number) if number else str(error) or type(error).__name__
    return OutputError(f"{path} cannot be {verb} ({found}); {remedy(error)}")


def remedy(error: Exception) -> str:
    """Return the remedy for an error of the operating system."""
    number = error.errno if isinstance(error, OSError) else None
    return _REMEDIES.get(number or 0, "is the disk full or damaged?")


def check_free(path: Path, overwrite: bool) -> None:
    """Raise `OutputExistsError` for a name that is taken, unless the file may be replaced."""
    check_replaceable(path)
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists")


def check_replaceable(path: Path) -> None:
    """Raise `OutputError` for a link, folder, device or pipe, which a new file would replace."""
    if path.is_symlink():
        raise OutputError(f"{path} is a link to {os.readlink(path)}; give the name of the file itself")
    if path.is_dir():
        raise OutputError(f"{path} is a folder; expected the name of a file")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} is no regular file; choose another name")


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Context manager that yields a temporary path, renamed to `path` on exit; raises `OutputError` on failure."""
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        move(part, path)
    except OSError as error:
        raise error if isinstance(error, OutputError) else unwritable(path, error) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def move(part: Path, path: Path) -> None:
    """Rename a complete file atomically, so that a crash leaves the old file or the new one."""
    check_replaceable(path)
    os.replace(part, path)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def open_locked(path: Path) -> io.FileIO:
    """Open a file, created if missing, with an exclusive lock held until it is closed or this process ends.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    while True:
        file = io.FileIO(path, "r+", opener=_open_or_make)
        try:
            _lock(file)
        except OSError:
            file.close()
            raise
        if _is_at(file, path):
            return file
        file.close()  # who held it has removed it meanwhile


def _open_or_make(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT, 0o666)


def _is_at(file: io.FileIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _lock(file: io.FileIO) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def locking(folder: Path, busy: str) -> Iterator[None]:
    """Context manager for making and locking a folder.

    Raises:
        LockedError: another process holds the lock; `busy` is the message.
        OutputError: the folder or its lock cannot be written.
    """
    try:
        yield
    except BlockingIOError as error:
        raise LockedError(busy) from error
    except OSError as error:
        raise unwritable(folder, error) from error


class PatientFile(io.RawIOBase):
    """A file for reading and writing whose write errors are kept in `error` instead of raised.

    Args:
        file: file opened by `open_locked`, which is emptied; not a path, because Python also closes an object whose
            creation has failed, and prints what goes wrong then.
    """

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._file.truncate()
        self.error: OSError | None = None

    def write(self, data: "Buffer") -> int:
        """Write all of it, or keep the error."""
        view = memoryview(data).cast("B")
        if self.error is None:
            try:
                written = 0
                while written < len(view):
                    written += self._file.write(view[written:]) or 0
            except OSError as error:
                self.error = error
        return len(view)

    def readinto(self, buffer: "Buffer") -> int:
        """Read into the buffer; zeros beyond the end of the file."""
        view = memoryview(buffer).cast("B")
        found = self._file.readinto(view) or 0
        view[found:] = bytes(len(view) - found)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        """Cut or extend, or keep the error."""
        try:
            return self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        self._file.close()
        super().close()
