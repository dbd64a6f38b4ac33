"""Writing files that are complete or absent, to a disk that may fill up.

HDF5 crashes the interpreter when it closes a file that it could not write. So it writes to a `PatientFile`, which keeps
the first error and takes whatever comes after as written; the error is raised between HDF5's calls instead.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from erf.errors import OutputError

if TYPE_CHECKING:
    from typing_extensions import Buffer


def check_free(path: Path, overwrite: bool) -> None:
    """Raise `OutputError` for a name that is taken, unless the file may be replaced."""
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists; choose another name or ask for --overwrite")


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` in the end; `OutputError` where it cannot be written."""
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error.strerror or error}); choose a folder that exists"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def lock(file: IO[str]) -> None:
    """Hold a file as long as this process keeps it open; `OSError` where another one does."""
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class PatientFile(io.RawIOBase):
    """A file for reading and writing whose write errors are kept in `error` instead of raised."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
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
        """Read; zeros where nothing is."""
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
