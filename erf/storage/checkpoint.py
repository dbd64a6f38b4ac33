"""Saved progress of a run that may be interrupted at any time: small files in a folder next to the result.

Every file is complete or absent. `state.json` names the others and is written last, so that it always describes one
moment: the sums of complete image groups, those of the current group, and the images in them. Files it no longer names
are removed afterwards. The folder is locked, and removed once the result exists.
"""

import hashlib
import io
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from erf.errors import CheckpointError, ImageError, UnfinishedRunError
from erf.images import Image, ImageSet
from erf.results import PROVENANCE, ImageRecord, Provenance, Row, unlike
from erf.storage.files import complete_file, locking, open_locked
from erf.storage.packing import Sums, pack_rows, pack_sums, unpack_rows, unpack_sums
from erf.storage.schema import provenance_of

EVERY = 30.0
"""Seconds between two savings."""

_FORMAT = 3
_STATE = "state.json"
_OWN = ("created", "command", "versions", "self_check")
"""Attributes that may differ between a run and its continuation."""


@dataclass(frozen=True)
class Saved:
    """Saved state of a run at one moment."""

    provenance: tuple[Provenance, ...]
    """Provenance by measured unit."""
    identity: Mapping[str, Any]
    """Further values that must be equal to resume."""
    groups: tuple[tuple[tuple[str, ...], Callable[[], tuple[Sums, ...]]], ...]
    """Subsets of the complete image groups, and a reader of their sums by measured unit; no sums where no image could
    be used."""
    running: tuple[Sums, ...]
    """Sums, by measured unit, of the current group; empty between groups."""
    visited: int
    """Number of images processed in the current group."""
    rows: Callable[[], Iterator[tuple[Row, ...]]]
    """Reader of the processed images, each with one row per measured unit."""


@dataclass
class Checkpoint:
    """Folder of a run's progress; use it in a `with` block, which holds the lock.

    Raises:
        LockedError: another run holds the lock.
        UnfinishedRunError: there is progress, and neither `resume` nor `fresh` was given.
    """

    folder: Path
    resume: bool = False
    """Resume from existing progress; without any, the run starts anew."""
    fresh: bool = False
    """Discard existing progress. Without `resume` or `fresh`, existing progress is an error, so that none is lost."""
    every: float = EVERY
    _files: dict[str, Any] = field(default_factory=dict)
    _pending: list[tuple[Row, ...]] = field(default_factory=list)

    def __enter__(self) -> "Checkpoint":
        with locking(self.folder, f"another run is writing the same output ({self.folder} is locked)"):
            self.folder.mkdir(exist_ok=True)
            self._lock = open_locked(self.folder / "lock")
        self._last = time.monotonic()
        if self.exists() and not self.resume:
            if not self.fresh:
                self._lock.close()
                raise UnfinishedRunError(f"an interrupted run left its progress in {self.folder}")
            self._clear()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None or not self.exists():
                with suppress(OSError):
                    self._clear()
                shutil.rmtree(self.folder, ignore_errors=True)
        finally:
            self._lock.close()

    def exists(self) -> bool:
        """Whether there is progress of an earlier run."""
        return (self.folder / _STATE).exists()

    def _clear(self) -> None:
        """Remove all files, `state.json` first, so that files left by a kill in between do not count as progress."""
        (self.folder / _STATE).unlink(missing_ok=True)
        for path in self.folder.iterdir():
            if path.name != "lock":
                path.unlink()

    def saved_at(self) -> float:
        """Return the modification time of the last saved progress."""
        return (self.folder / _STATE).stat().st_mtime

    def add(self, rows: Sequence[Row]) -> None:
        """Add the rows of one processed image, one per measured unit."""
        self._pending.append(tuple(rows))

    def is_due(self) -> bool:
        return time.monotonic() - self._last >= self.every

    def save(
        self,
        provenance: Sequence[Provenance],
        identity: Mapping[str, Any],
        groups: Sequence[tuple[tuple[str, ...], Callable[[], Sequence[Sums]]]],
        running: Sequence[Sums],
        visited: int,
    ) -> None:
        """Save the current state, from which the run can resume.

        Args:
            provenance: provenance by measured unit.
            identity: further values that must be equal to resume.
            groups: subsets of the complete image groups, and a function that returns their sums, called once.
            running: sums of the current group by measured unit; empty between groups.
            visited: number of images processed in the current group.

        Raises:
            OutputError: a file cannot be written.
        """
        files = self._files or {"groups": [], "rows": [], "running": "", "images": 0}
        for number, (subsets, sums) in enumerate(groups[len(files["groups"]) :], start=len(files["groups"])):
            files["groups"].append(
                {"subsets": subsets, "file": self._write(f"group-{number:04d}.npz", pack_sums(sums()))}
            )
        if self._pending:
            files["rows"].append(self._write(f"images-{files['images']:07d}.npz", pack_rows(self._pending)))
        files["images"] += len(self._pending)
        before, files["running"] = files["running"], ""
        if running:
            files["running"] = self._write(f"running-{files['images']:07d}.npz", pack_sums(running))
        payload = {
            "format": _FORMAT,
            "provenance": [asdict(each) for each in provenance],
            "identity": dict(identity),
            "visited": visited,
            "files": files,
        }
        with complete_file(self.folder / _STATE) as part:
            part.write_text(_sealed(payload), encoding="utf-8")
        if before and before != files["running"]:
            (self.folder / before).unlink(missing_ok=True)
        self._files, self._pending, self._last = files, [], time.monotonic()

    def _write(self, name: str, arrays: Sums) -> str:
        with complete_file(self.folder / name) as part, part.open("wb") as file:
            keywords: dict[str, Any] = dict(arrays)
            np.savez(file, **keywords)
        return name

    def load(self) -> Saved:
        """Load what an earlier run saved last; raises `CheckpointError` if it is damaged."""
        with self._reading():
            payload = _unsealed((self.folder / _STATE).read_text(encoding="utf-8"))
            files = payload["files"]
            provenance = tuple(provenance_of(each) for each in payload["provenance"])
            units = len(provenance)
            groups = tuple(
                (tuple(group["subsets"]), partial(self._sums, group["file"], units)) for group in files["groups"]
            )
            running = self._sums(files["running"], units) if files["running"] else ()
            rows = partial(self._rows, tuple(files["rows"]), provenance)
        self._files = files
        return Saved(provenance, payload["identity"], groups, running, int(payload["visited"]), rows)

    def _rows(self, names: Sequence[str], provenance: Sequence[Provenance]) -> Iterator[tuple[Row, ...]]:
        for name in names:
            with self._reading():
                rows = list(unpack_rows(self._read(name), provenance))
            yield from rows

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except CheckpointError:
            raise
        except Exception as error:  # a damaged file may hold anything
            raise CheckpointError(f"the progress in {self.folder} is damaged ({error})") from error

    def _read(self, name: str) -> dict[str, NDArray[Any]]:
        if Path(name).name != name:
            raise ValueError(f"file name {name}")
        with np.load(io.BytesIO((self.folder / name).read_bytes()), allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}

    def _sums(self, name: str, units: int) -> tuple[Sums, ...]:
        with self._reading():
            return unpack_sums(self._read(name), units)


def differences(saved: Saved, provenance: Sequence[Provenance], identity: Mapping[str, Any]) -> list[str]:
    """Describe the differences between a run and saved progress, in words; empty if it can be resumed."""
    if len(saved.provenance) != len(provenance):
        return [f"{len(saved.provenance)} and {len(provenance)} layers"]
    names = [name for name in PROVENANCE if name not in _OWN]
    pairs = zip(saved.provenance, provenance, strict=True)
    found = [words for before, now in pairs for words in unlike(before, now, names)]
    found += [name for name, value in identity.items() if saved.identity.get(name) != value]
    return list(dict.fromkeys(found))


def changed_images(images: ImageSet, records: Iterable[ImageRecord], since: float) -> list[str]:
    """List files of used images whose content has changed; only files modified after `since` are read."""
    known = {one.id: one for image in images.images for one in image.parts or (image,)}
    pairs = ((known.get(record.id), record.sha256) for record in records)
    return [f"content of {image.file}" for image, digest in pairs if image and _has_changed(image, digest, since)]


def _has_changed(image: Image, sha256: str, since: float) -> bool:
    if not (sha256 and image.file and image.file.is_file() and image.file.stat().st_mtime > since):
        return False
    try:
        return image.decode().sha256 != sha256
    except ImageError:
        return True


def _sealed(payload: Mapping[str, Any]) -> str:
    text = json.dumps(payload)
    return json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), "payload": text})


def _unsealed(text: str) -> dict[str, Any]:
    sealed = json.loads(text)
    if hashlib.sha256(sealed["payload"].encode()).hexdigest() != sealed["sha256"]:
        raise ValueError("its checksum does not fit")
    payload: dict[str, Any] = json.loads(sealed["payload"])
    if payload["format"] != _FORMAT:
        raise ValueError(f"format {payload['format']} of another version, this one writes {_FORMAT}")
    return payload
