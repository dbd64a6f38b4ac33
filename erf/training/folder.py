"""Output folder of a training: settings, logs, weights, and the state from which it can be resumed.

Every file is complete or absent. `state.pt` is one snapshot of the training and is written before its log, so that a
resumed training first truncates the log to that snapshot.
"""

import csv
import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from erf.errors import CheckpointError, FormatError, OutputError, UnfinishedRunError
from erf.storage.files import complete_file, locking, open_locked

STEPS = ("step", "stage", "epoch", "lr", "loss")
"""Columns of log.csv, which has one row per update."""

HEADER = "erf-toolkit"
"""Key of the JSON text in the header of weights files."""

_STATE, _ABOUT, _LOG, _EPOCHS, _WEIGHTS = "state.pt", "run.json", "log.csv", "epochs.json", "checkpoints"
_FINAL = "final.safetensors"
_OWN = (_WEIGHTS, "curves.png", "erf.h5", "erf.png", _LOG, _EPOCHS, _ABOUT, _FINAL, _STATE)
"""All names in the folder, in the order of deletion; the state goes last."""
_PART = re.compile(r"^\..*\.part(\..+)?$")
"""Pattern of the names of incomplete files."""


@dataclass
class State:
    """Snapshot of a training."""

    identity: Mapping[str, Any]
    """Settings that must be unchanged when the training is resumed."""
    stage: int = 0
    epoch: int = 0
    """Finished epochs of the current stage."""
    step: int = 0
    """Updates within the current epoch."""
    updates: int = 0
    """Updates since the start of the training."""
    model: Mapping[str, Tensor] = field(default_factory=dict)
    optimiser: Mapping[str, Any] = field(default_factory=dict)
    steps: list[dict[str, Any]] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Folder:
    """Output folder of a training; use it in a `with` block, which holds the lock.

    Entering it raises `LockedError`, `OutputError`, or `UnfinishedRunError` if it holds a training and neither `resume`
    nor `overwrite` is set.
    """

    path: Path
    resume: bool = False
    overwrite: bool = False
    is_first: bool = True
    """Whether this is the first process; only the first writes."""

    def __enter__(self) -> "Folder":
        if not self.is_first:
            return self
        with locking(self.path, f"another training writes to {self.path}"):
            (self.path / _WEIGHTS).mkdir(parents=True, exist_ok=True)
            self._lock = open_locked(self.path / "lock")
        try:
            self._take_over()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _take_over(self) -> None:
        """Check the folder's content, and clear an existing training unless it is resumed."""
        names = {path.name for path in self.path.iterdir()}
        foreign = {name for name in names - {*_OWN, "lock"} if not _PART.search(name)}
        if foreign and not names & {_STATE, _FINAL, _ABOUT}:
            raise OutputError(f"{self.path} holds other files, such as {min(foreign)}; choose a folder of its own")
        for path in (path for path in self.path.rglob(".*") if _PART.search(path.name)):
            path.unlink(missing_ok=True)  # left by a process that was killed
        if names & {_STATE, _FINAL} and not self.resume:
            if not self.overwrite:
                raise UnfinishedRunError(f"{self.path} holds a training")
            self._clear()

    def __exit__(self, *_: object) -> None:
        if not self.is_first:
            return
        with suppress(OSError):
            (self.path / "lock").unlink()
        self._lock.close()
        with suppress(OSError):  # fails unless nothing was written
            (self.path / _WEIGHTS).rmdir()
            self.path.rmdir()

    @property
    def is_finished(self) -> bool:
        """Whether the folder holds a finished training."""
        return (self.path / _FINAL).exists() and not (self.path / _STATE).exists()

    def finished(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Read the settings and epochs of a finished training; `CheckpointError` if the files are damaged."""
        try:
            texts = [(self.path / name).read_text(encoding="utf-8") for name in (_ABOUT, _EPOCHS)]
            about, epochs = map(json.loads, texts)
            return dict(about), list(epochs)
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"the training in {self.path} is damaged ({error})") from error

    def _clear(self) -> None:
        for file in (self.path / _WEIGHTS).glob("*.safetensors"):
            file.unlink()
        for name in _OWN:
            if name != _WEIGHTS:
                (self.path / name).unlink(missing_ok=True)

    def describe(self, about: Mapping[str, Any]) -> None:
        """Write the settings of the training to run.json."""
        self._write(_ABOUT, json.dumps(about, indent=2) + "\n")

    def save(self, state: State) -> None:
        """Save the snapshot from which the training can be resumed, then its log."""
        # Serialise in memory first: PyTorch reports a full disk as an internal error.
        packed = io.BytesIO()
        torch.save(vars(state), packed)
        with complete_file(self.path / _STATE) as part:
            part.write_bytes(packed.getbuffer())
        self.write_log(state)

    def write_log(self, state: State) -> None:
        """Write log.csv and epochs.json."""
        text = io.StringIO()
        writer = csv.DictWriter(text, STEPS)
        writer.writeheader()
        writer.writerows(state.steps)
        self._write(_LOG, text.getvalue())
        self._write(_EPOCHS, json.dumps(state.epochs, indent=2) + "\n")

    def load(self) -> State | None:
        """Load the last snapshot, or None if there is none; `CheckpointError` if it is damaged."""
        path = self.path / _STATE
        if not path.exists():
            return None
        try:
            with zipfile.ZipFile(path) as archive:  # older formats can run code in PyTorch before 2.6
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise ValueError("it is compressed")
            return State(**torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # a damaged file may hold anything
            first = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
            raise CheckpointError(f"{path} is damaged ({first})") from error

    def finish(self) -> None:
        """Mark the training as finished by deleting its state."""
        (self.path / _STATE).unlink(missing_ok=True)

    def save_weights(self, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> Path:
        """Write weights as safetensors with `about` in the header; equal content gives equal bytes."""
        path = self.path / name
        with complete_file(path) as part:
            part.write_bytes(pack_weights(tensors, about))
        return path

    def checkpoints(self) -> Sequence[Path]:
        """List the weights files of the epochs, in order."""
        return sorted((self.path / _WEIGHTS).glob("*.safetensors"))

    def _write(self, name: str, text: str) -> None:
        with complete_file(self.path / name) as part:
            part.write_text(text, encoding="utf-8")


_KINDS: dict[str, type] = {
    **dict.fromkeys(("model", "normalisation", "fit", "interpolation", "trained_on"), str),
    **dict.fromkeys(("model_options", "data"), dict),
    **dict.fromkeys(("size", "classes"), list),
}
"""Fields of run.json that an evaluation needs, and their types."""


def read_about(path: Path) -> dict[str, Any]:
    """Read the settings of the training in a folder; `FormatError` unless it holds a finished training."""
    try:
        about: dict[str, Any] = dict(json.loads((path / _ABOUT).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise FormatError(f"{path}: no {_ABOUT} ({error}); expected the folder of a training") from error
    wrong = [name for name, kind in _KINDS.items() if not isinstance(about.get(name), kind)]
    if wrong:
        raise FormatError(f"{path}: {_ABOUT} has no {', '.join(wrong)}; expected the folder of a training")
    if not (path / _FINAL).is_file():
        raise FormatError(f"{path}: the training there is not finished", remedy="go on with `resume=True`")
    return about


def pack_weights(tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> bytes:
    """Serialise tensors as a safetensors file with `about` in its header."""
    # A single entry: safetensors writes several entries in varying order.
    header = {HEADER: json.dumps(dict(about))}
    return save({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, header)


def read_header(path: Path) -> dict[str, Any]:
    """Read what the header of a weights file says about its training; empty for other weights files."""
    if not path.is_file():  # opening a pipe would block
        return {}
    try:
        with safe_open(path, "pt") as opened:
            found = json.loads((opened.metadata() or {}).get(HEADER, "{}"))
    except (SafetensorError, OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
