"""Saving the progress of a run, and resuming from it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from typing import Any

from erf.engine.accumulators import Measurements
from erf.engine.plan import Plan
from erf.errors import CheckpointError
from erf.gradients.way import Way
from erf.images import ImageSet
from erf.profiling import stage
from erf.results import Provenance, Row
from erf.storage.checkpoint import Checkpoint, Saved, changed_images, differences


@dataclass(frozen=True)
class RunProgress:
    """Progress of a run: that of an earlier process, and a folder in which to save one's own."""

    images: ImageSet
    identity: Mapping[str, Any]
    """Values that must be equal to resume, besides the provenance."""
    checkpoint: Checkpoint | None
    saved: Saved | None
    """Progress of an earlier process."""

    @classmethod
    def of(cls, plan: Plan, way: Way, checkpoint: Checkpoint | None, saved: Saved | None) -> "RunProgress":
        """Identify a run; one that resumes keeps its batch size unless settings or network demand another."""
        ids = "\n".join(f"{image.id}\t{image.path}" for image in plan.images.images)
        is_kept = saved is not None and not plan.batch_size_is_given
        identity = {
            "images": sha256(ids.encode()).hexdigest(),
            "batch size": int(saved.identity["batch size"]) if saved and is_kept else plan.batch_size,
            "way": asdict(way),
        }
        return cls(plan.images, identity, checkpoint, saved)

    def begin(self, measurements: Measurements, add: Callable[[Sequence[Row]], None]) -> int:
        """Begin a run where an earlier process has saved its progress, or anew.

        Args:
            measurements: the measurements, whose sinks begin.
            add: called with the rows of each image that was processed before.

        Returns:
            The number of images of the current group that were processed before.

        Raises:
            CheckpointError: the progress is of another run.
        """
        saved = self.saved
        if saved is None:
            measurements.begin()
            return 0
        self._check_same(saved, measurements.provenance)
        measurements.recall(saved.provenance)
        measurements.begin()
        for rows in saved.rows():
            add(rows)
        for subsets, read in saved.groups:
            measurements.begin_group(read())
            measurements.end_group(subsets)
        if saved.running:
            measurements.begin_group(saved.running)
        return saved.visited

    def _check_same(self, saved: Saved, provenance: Sequence[Provenance]) -> None:
        assert self.checkpoint is not None
        unlike = differences(saved, provenance, self.identity)
        records = (row.record for row, *_ in saved.rows())
        unlike += changed_images(self.images, records, self.checkpoint.saved_at())
        if unlike:
            raise CheckpointError(
                f"the progress in {self.checkpoint.folder} is of another run: other {'; '.join(unlike)}"
            )

    def add(self, rows: Sequence[Row]) -> None:
        """Add the rows of an image that was processed now."""
        if self.checkpoint:
            self.checkpoint.add(rows)

    def save_if(self, is_stopping: bool, measurements: Measurements, visited: int) -> None:
        """Save the progress if it is time or the run stops; `visited` images of the current group are processed."""
        if self.checkpoint and (is_stopping or self.checkpoint.is_due()):
            with stage("write"):
                self.save(measurements, visited)

    def save(self, measurements: Measurements, visited: int) -> None:
        """Save the progress, with `visited` images of the current group."""
        assert self.checkpoint is not None
        groups = [
            (subsets, partial(measurements.group_sums, number)) for number, subsets in enumerate(measurements.groups)
        ]
        self.checkpoint.save(measurements.provenance, self.identity, groups, measurements.running_sums(), visited)
