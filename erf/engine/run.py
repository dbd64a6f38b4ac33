"""Execution of a run: the loop over images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice

from erf.engine.accumulators import Measurements, Subsets
from erf.engine.batches import ImageGradients, LocatedSample
from erf.engine.groups import ImageGroup, Rounds
from erf.engine.records import RecordBuilder
from erf.engine.resuming import RunProgress
from erf.engine.runner import BatchRunner
from erf.engine.stopping import Stopping
from erf.errors import ImageError, InterruptedRunError
from erf.images import Failure, Image, ImageSet, Progress, Sample
from erf.images.stream import ahead
from erf.network.uploads import Uploader
from erf.results import ERF, Row


@dataclass
class Run:
    """One run: its parts, and how far it has come."""

    images: ImageSet
    batches: BatchRunner
    measurements: Measurements
    records: RecordBuilder
    stopping: Stopping
    progress: RunProgress
    workers: int
    """Threads that decode ahead."""
    strict: bool
    """Whether an image that cannot be used ends the run."""
    stop: Callable[[], bool]
    """Polled after each batch; when it returns True, the run saves its progress and raises."""
    done: int = 0
    """Number of images processed."""
    visited: int = 0
    """Number of images processed in the current group."""
    failures: list[str] = field(default_factory=list)
    """Reasons why images could not be used."""

    def __post_init__(self) -> None:
        self._upload = Uploader.to(self.batches.gradients.device)

    def begin(self) -> None:
        """Start the run, or resume it from saved progress."""
        self.visited = self.progress.begin(self.measurements, self._add)

    def visit(self, rounds: Rounds, report: Progress | None) -> None:
        """Process the images round by round until there are enough; one group's sums are in memory at a time.

        Args:
            rounds: image groups by round; after each round the stopping rule is asked.
            report: called after each image.

        Raises:
            InterruptedRunError: the run was asked to stop; its progress is saved if there is a checkpoint.
            ImageError: an image cannot be used, and the run is strict.
        """
        completed = iter(self.measurements.groups)
        for groups in rounds:
            for group in groups:
                if next(completed, None) is None:
                    self._visit_group(group, report)
            if self.stopping.is_met(self.measurements.members[-1].provenance):
                break

    def _visit_group(self, group: ImageGroup, report: Progress | None) -> None:
        if not self.measurements.has_begun_group:
            self.measurements.begin_group()
        with closing(ahead(self._prepared, group.images[self.visited :], self.workers)) as stream:
            while batch := list(islice(stream, self.batches.batch_size)):
                for rows in self._rows(batch, group.subsets):
                    self._add(rows)
                    self.progress.add(rows)
                    if report:
                        report("images", self.done, len(self.images))
                self.visited += len(batch)
                del batch  # otherwise its images stay in memory while waiting for the next
                self._pause()
        self.measurements.end_group(group.subsets)
        self.visited = 0

    def _prepared(self, image: Image) -> LocatedSample | Failure:
        """Decode an image, find its own units and start its upload to the device."""
        sample = self.images.sample(image)
        item = self.batches.gradients.locate(sample) if isinstance(sample, Sample) else sample
        return item if isinstance(item, Failure) else replace(item, upload=self._upload(item.sample.pixels))

    def _rows(self, batch: Sequence[LocatedSample | Failure], subsets: Subsets) -> Iterator[list[Row]]:
        """Compute and accumulate the gradients of a batch; yield the rows of each image."""
        gradients = self.batches.compute([item for item in batch if not isinstance(item, Failure)])
        for item in batch:
            if isinstance(item, Failure):
                yield self._failed(item, subsets)
            else:
                yield self._used(item.sample, subsets, gradients.pop(0))

    def _used(self, sample: Sample, subsets: Subsets, gradients: ImageGradients) -> list[Row]:
        try:
            notes = self.batches.diagnosis.inspect(sample, gradients, is_first=not self.done)
        except ImageError as error:
            return self._failed(Failure(sample.image, str(error)), subsets)
        return self.records.used(sample, subsets, gradients, notes)

    def _failed(self, failure: Failure, subsets: Subsets) -> list[Row]:
        if self.strict:
            raise ImageError(failure.reason)
        return self.records.failed(failure, subsets)

    def _add(self, rows: Sequence[Row]) -> None:
        """Pass the rows of a processed image to the sinks."""
        self.measurements.add_image(rows)
        self.done += 1
        last = rows[-1]
        if last.record.status != "ok":
            self.failures.append(last.record.message)
        else:
            self.stopping.add(last)

    def _pause(self) -> None:
        is_stopping = self.stop()
        self.progress.save_if(is_stopping, self.measurements, self.visited)
        if is_stopping:
            raise InterruptedRunError(f"interrupted after {self.done} of {len(self.images)} images")

    def finish(self, report: Progress | None) -> tuple[ERF, ...]:
        """Write all maps to the sinks and return the results.

        Raises:
            ImageError: no image could be used.
        """
        erfs = self.measurements.finish(report)
        if not erfs:
            raise ImageError(f"none of {len(self.failures)} images could be used; the first: {self.failures[0]}")
        return erfs
