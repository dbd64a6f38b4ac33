"""Moments of complete image groups, kept on disk."""

from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile, gettempdir
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from erf.accumulation.moments import Moments
from erf.accumulation.running import RunningMoments
from erf.results import Profile
from erf.storage.files import unwritable


class StoredMoments:
    """Moments of a complete image group, stored in an unnamed temporary file to free memory.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, running: RunningMoments, folder: Path | None = None) -> None:
        self.count = running.count
        self._places: dict[str, tuple[int, tuple[int, ...]]] = {}
        self._draws: dict[str, Profile | None] = {}
        place = folder or Path(gettempdir())
        try:
            self._file: IO[bytes] = TemporaryFile(dir=place)  # noqa: SIM115 (closed by close)
            try:
                self._set_down(running)
            except OSError:
                with suppress(OSError):  # closing flushes the rest, which fails again
                    self._file.close()
                raise
        except OSError as error:
            raise unwritable(f"sums in {place}", error, "set aside") from error

    def _set_down(self, running: RunningMoments) -> None:
        for definition in running.definitions:
            moments = running.moments(definition)
            self._places[definition] = (self._file.tell(), moments.mean.shape)
            self._draws[definition] = moments.draws
            moments.mean.tofile(self._file)
            moments.deviations.tofile(self._file)
        self._file.flush()
        self._draw_sums = {name: sums for name, sums in running.state().items() if name.startswith("draws/")}

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the state that `RunningMoments.restore` expects."""
        found = [self.moments(definition) for definition in self._places]
        return {
            "count": np.array(self.count),
            "mean": np.stack([moments.mean for moments in found]),
            "deviations": np.stack([moments.deviations for moments in found]),
        } | self._draw_sums

    def moments(self, definition: str) -> Moments:
        """Read the moments of one definition back from the file."""
        offset, shape = self._places[definition]
        self._file.seek(offset)
        size = int(np.prod(shape))
        mean, deviations = (np.fromfile(self._file, np.float64, size).reshape(shape) for _ in range(2))
        return Moments(self.count, mean, deviations, self._draws[definition])

    def close(self) -> None:
        self._file.close()
