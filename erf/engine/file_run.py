"""A run whose results are files: progress is kept next to them, and a finished run is recognised."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from torch import nn

from erf.engine.api import compute_layers
from erf.engine.settings import Settings
from erf.errors import CheckpointError, FormatError
from erf.images import ImageSet
from erf.results import Origin
from erf.storage import FileSink, checkpoint, load
from erf.storage.checkpoint import Checkpoint, changed_images
from erf.storage.staging import Staging

_WITHOUT_EFFECT = ("device", "workers", "strict", "allow_rounding")
"""Settings that do not determine the result."""


def identify(settings: Settings, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that determines a result, ready for JSON: the settings, and facts on network and images."""
    kept = {name: value for name, value in asdict(settings).items() if name not in _WITHOUT_EFFECT}
    found: dict[str, Any] = json.loads(json.dumps({**facts, **kept}, default=str))
    return found


def identity_digest(identity: Mapping[str, Any]) -> str:
    """Return the SHA-256 digest that a file keeps of what determines its result."""
    return sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class FileRun:
    """A run that writes one file for each measured unit; its `Staging` has been begun with its identity."""

    staging: Staging
    files: Sequence[Path]
    images: ImageSet
    origin: Origin
    """Origin with the digest of the run's identity."""

    def is_finished(self, **expected: Any) -> bool:
        """Whether an earlier run wrote the results; `expected` are attributes of their provenance."""
        return self.staging.is_finished(
            self.files, lambda: [words for file in self.files for words in self._differences(file, expected)]
        )

    def _differences(self, file: Path, expected: Mapping[str, Any]) -> list[str]:
        """List what differs between an existing result and this run."""
        try:
            found = load(file)
        except FormatError:
            return ["kind of file"]
        expected = {name: getattr(self.origin, name) for name in ("protocol", "deviations")} | dict(expected)
        differences = [name for name, value in expected.items() if getattr(found.provenance, name) != value]
        if found.provenance.identity != self.origin.identity and not differences:
            return ["network, images or settings"]
        return differences or changed_images(self.images, found.images, file.stat().st_mtime)

    def compute(
        self, model: nn.Module, layers: Sequence[str], settings: Settings, *, process: str = "", **options: Any
    ) -> None:
        """Compute the results, unless an earlier process has completed them.

        Args:
            model: network.
            layers: paths of its layers.
            settings: settings of the run.
            process: name of this process, if each of several computes a part of the images; '' for the whole result.
            options: further arguments of `compute_layers`.
        """
        folder = self.staging.folder / (process or "1-of-1")
        parts = [self.part(file, process) for file in self.files]
        if all(part.exists() for part in parts) and not (folder / "state.json").exists():
            if changed := changed_images(self.images, load(parts[0]).images, parts[0].stat().st_mtime):
                raise CheckpointError(f"the progress in {folder.parent} is of another run: other {'; '.join(changed)}")
            return
        with ExitStack() as stack:
            saved = stack.enter_context(Checkpoint(folder, resume=True, every=checkpoint.EVERY))
            sinks = [stack.enter_context(FileSink(part, overwrite=True)) for part in parts]
            compute_layers(
                model, self.images, layers, settings, origin=self.origin, sinks=sinks, checkpoint=saved,
                scratch=self.files[0].parent, **options,
            )  # fmt: skip

    def part(self, file: Path, process: str) -> Path:
        """Return the path where a process writes its part of a result."""
        return self.staging.folder / f"{process}.{file.name}" if process else self.staging.part(file)
