"""Staging of a command's results, which appear together: written to a hidden folder next to the first, then renamed.

A lock next to the folder is held as long as the command lives. Both go with it, unless the folder holds the progress of
a run. What a killed command has left is cleared by the next one with the same output. The lock also holds the names of
the results while they are renamed, and is the last to be removed: a command that was killed before that is given again.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from erf.errors import CheckpointError, OutputExistsError, UnfinishedRunError
from erf.storage.files import complete_file, move, unwritable
from erf.storage.lock import Lock
from erf.storage.outputs import check_new

_RUN = "run.json"


@dataclass
class Staging:
    """Temporary folder for a command's results until they are complete; use it in a `with` block.

    Raises `OutputExistsError` for results that exist and may not be replaced, `UnfinishedRunError` where an interrupted
    run has left progress, and `CheckpointError` where another command is writing the first of them.
    """

    outputs: Sequence[Path]
    overwrite: bool = False
    """Replace existing results, and discard existing progress."""
    resume: bool = False
    """Resume from existing progress."""
    _locks: dict[Path, Lock] = field(default_factory=dict)
    """Locks by folder."""

    @property
    def folder(self) -> Path:
        """Folder of the first result, which also holds the progress of a run."""
        return self._folder(self.outputs[0])

    def part(self, output: Path) -> Path:
        """Return the path at which a result is written."""
        return self._folder(output) / output.name

    def _folder(self, output: Path) -> Path:
        """Return the folder next to a result, on the same disk, so that publishing is only a rename."""
        first = next(each for each in self.outputs if each.parent == output.parent)
        return first.with_name(f".{first.name}.progress")

    @property
    def folders(self) -> list[Path]:
        """One for each folder of results."""
        return list(dict.fromkeys(map(self._folder, self.outputs)))

    def __enter__(self) -> "Staging":
        try:
            for folder in self.folders:
                self._locks[folder] = Lock(folder)
            self._take_over()
        except BaseException:
            self._leave(is_done=False)
            raise
        return self

    def _take_over(self) -> None:
        """Keep the progress of a run, or clear what is there."""
        is_run = (self.folder / _RUN).exists()
        if is_run and self.has_progress and not self.resume and not self.overwrite:
            raise UnfinishedRunError(f"an interrupted run left its progress in {self.folder}")
        if is_run and self.resume:
            return
        # Of a command that was killed while it renamed its results, some may be there.
        free = [] if is_run else self._lock.results
        try:
            if not self.resume:
                check_new([path for path in self.outputs if str(path) not in free], self.overwrite)
        finally:
            for folder in self.folders:
                self._clear(folder)
        self._lock.record_free(free)

    @property
    def has_progress(self) -> bool:
        """Whether a killed run has left more than it began with."""
        there = self.folder.iterdir() if self.folder.is_dir() else ()
        found = [path for path in there if path.name != _RUN and path.name[0] != "."]
        return self.is_moving or any(path.is_file() or (path / "state.json").exists() for path in found)

    @property
    def is_moving(self) -> bool:
        """Whether a killed run was renaming its results."""
        return self.folder in self._locks and self._lock.is_moving

    @property
    def _lock(self) -> Lock:
        """Lock of the first result's folder, which records the results of all folders."""
        return self._locks[self.folder]

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Tie the progress to a run; `CheckpointError` names what differs where it is of another one."""
        path = self.folder / _RUN
        now = json.loads(json.dumps(dict(identity)))
        try:
            before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else now
        except (OSError, ValueError) as error:
            raise CheckpointError(f"the progress in {self.folder} is damaged ({path.name}: {error})") from error
        if before != now and self.has_progress:
            raise CheckpointError(
                f"the progress in {self.folder} is of another run: other {'; '.join(unlike_settings(before, now))}"
            )
        if before != now:
            self._clear(self.folder)
        with complete_file(path) as part:
            part.write_text(json.dumps(now), encoding="utf-8")

    def is_finished(self, results: Sequence[Path], differences: Callable[[], Sequence[str]]) -> bool:
        """Whether the results of a run exist or only have to be given their names.

        `differences` lists what differs between the run that wrote them and this one; where they may not be replaced,
        such a difference is an `OutputExistsError`.
        """
        if self.is_moving:
            return True
        if not self.resume or self.has_progress or not all(path.exists() for path in results):
            check_new(self.outputs, self.overwrite)
            return False
        found = list(dict.fromkeys(differences()))
        if found and not self.overwrite:
            raise OutputExistsError(f"{results[0]} is of another run: other {'; '.join(found)}")
        return not found

    def publish(self) -> None:
        """Give all results their names; if that is cut short, the next command knows of it."""
        if not self.is_moving:
            self._lock.record_moving(self.outputs)
        for path in self.outputs:
            try:
                if self.part(path).exists():
                    move(self.part(path), path)
            except OSError as error:
                raise unwritable(path, error) from error

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._leave(is_done=kind is None)

    def _leave(self, is_done: bool) -> None:
        """Remove what this process holds, but not the progress of a run that is not done; the first lock goes last."""
        is_kept = not is_done and (self.folder / _RUN).exists() and self.has_progress
        is_moving = self.is_moving
        for folder, lock in reversed(self._locks.items()):
            if not is_kept:
                self._clear(folder)
                shutil.rmtree(folder, ignore_errors=True)
            lock.close(is_removed=not (is_kept and is_moving))
        self._locks.clear()

    def _clear(self, folder: Path) -> None:
        """Remove what is in a folder; what says of a run how far it is goes last."""
        found = [folder / name for name in os.listdir(folder)] if folder.is_dir() else []
        for path in sorted(found, key=lambda path: path.name == _RUN):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def unlike_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List the settings of a run that differ, with both values where they are short."""
    found = []
    for name in dict.fromkeys([*before, *now]):
        values = [_words(each.get(name)) for each in (before, now)]
        if before.get(name) != now.get(name):
            found.append(f"{name} {values[0]} and {values[1]}" if max(map(len, values)) <= 40 else name)
    return found


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_words, value)) or "none"
    return "none" if value in (None, "", {}) else str(value)
