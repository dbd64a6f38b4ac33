"""Lock file of a command's results, which also records the names of the results while they are renamed."""

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from erf.storage.files import locking, open_locked, unwritable

_MOVING, _FREE = "moving", "free"
"""Results that are being renamed, and those of an earlier command that may be replaced."""


class Lock:
    """Exclusive lock of a folder, held until it is closed or the process ends.

    The file is beside the folder, not in it, because it outlives the folder.

    Args:
        folder: folder that is locked; it is created after the lock is held.

    Raises:
        LockedError: another process holds the lock.
        OutputError: the lock or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder.with_suffix(".lock")
        with locking(folder, f"another run is writing the same output ({folder} is locked)"):
            self._file = open_locked(self._path)
            try:
                folder.mkdir(exist_ok=True)
            except OSError:
                self.close(is_removed=True)
                raise

    @property
    def is_moving(self) -> bool:
        """Whether results are being renamed, by this process or a killed one."""
        return _MOVING in self._recorded()

    @property
    def results(self) -> list[str]:
        """Names of the recorded results."""
        return [name for names in self._recorded().values() for name in names]

    def _recorded(self) -> dict[str, list[str]]:
        """Return names by state; none if writing them was interrupted, before any result was renamed."""
        try:
            self._file.seek(0)
            return dict(json.loads(self._file.readall()))
        except (ValueError, TypeError):
            return {}

    def record_moving(self, results: Sequence[Path]) -> None:
        """Record the results that will be renamed."""
        self._record(_MOVING, [str(path) for path in results])

    def record_free(self, names: Sequence[str]) -> None:
        """Record the results that may be replaced."""
        self._record(_FREE, names)

    def _record(self, state: str, names: Sequence[str]) -> None:
        """Replace the record in one call and never by less, so that a kill leaves the old text or the new."""
        text = json.dumps({state: list(names)}).encode()
        try:
            self._file.seek(0, os.SEEK_END)
            text = text.ljust(self._file.tell())
            self._file.seek(0)
            self._file.write(text)
            os.fsync(self._file.fileno())
        except OSError as error:
            raise unwritable(self._folder, error) from error

    def close(self, is_removed: bool = False) -> None:
        """Release the lock, and remove its file if it has no record for the next command."""
        if is_removed:
            with suppress(OSError):  # some systems do not remove what is open
                self._path.unlink()
        self._file.close()
