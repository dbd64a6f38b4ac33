"""Execution of one run: decode images, accumulate unit gradients, and pass results to the sinks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial, reduce
from hashlib import sha256
from itertools import count, groupby, islice, pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from erf.accumulation.moments import Moments
from erf.accumulation.running import RunningMoments
from erf.accumulation.shelf import ShelvedMoments
from erf.engine.batches import BatchGradients, Found, Located, moved, sums_device
from erf.engine.settings import ALL_CHANNELS, Settings
from erf.errors import CheckpointError, ImageError, InterruptedRunError, LayerError, NoGradientError
from erf.gradients.flow import gradient_end
from erf.gradients.way import Way
from erf.images import Failure, Image, ImageSet, Progress, Sample, overview
from erf.images.stream import ahead
from erf.measures import interleaved, observe_images
from erf.network.devices import is_memory_error, synchronise
from erf.network.layers import Unit
from erf.network.uploads import Uploader
from erf.profiling import stage
from erf.results import (
    ERF,
    Footprint,
    ImageRecord,
    Overview,
    Provenance,
    Row,
    Sink,
    Statistics,
    blank_overview,
    input_subset,
    stack_footprints,
    without_input,
)
from erf.storage.checkpoint import Checkpoint, Saved, Sums, changed_images, differences

if TYPE_CHECKING:
    from erf.uncertainty import Precision

_NOTHING = 1e-5
"""Relative threshold below which a channel sum is numerical noise."""
_CANCELLED = (
    "the channels of a unit sum to nothing, as behind an untrained layer norm, so that the gradient on all of them is "
    "rounding; choose the layer before the norm, or one `channel`"
)

_FIRST_ROUND = 12
"""Number of images before the first test whether there are enough."""


@dataclass(frozen=True)
class Cell:
    """Image group: the images that belong to the same subsets."""

    subsets: tuple[str, ...]
    images: tuple[Image, ...]


@dataclass
class Lane:
    """Accumulator of one input of the network: the current image group, and the groups that are complete."""

    name: str
    channels: slice
    """Channels of the image that belong to this input."""
    running: RunningMoments | None = None
    cells: list[tuple[tuple[str, ...], ShelvedMoments | None]] = field(default_factory=list)
    """Subsets and sums of each complete group; None where no image could be used."""

    def subsets(self, subsets: tuple[str, ...]) -> tuple[str, ...]:
        """Extend the subsets of an image by the subset of this input."""
        return (*subsets, input_subset(self.name)) if self.name else subsets


@dataclass
class Tap:
    """One measured unit of a layer, or one unit per image: its provenance, sink, and accumulators per input."""

    provenance: Provenance
    sink: Sink
    part: tuple[int, int, int, int]
    """(top, bottom, left, right) in pixels: the region of the image that the sums cover."""
    lanes: list[Lane]

    def begin_cell(self, device: torch.device, states: Sequence[Sums | None]) -> None:
        origin = self.provenance
        for lane, state in zip(self.lanes, states, strict=True):
            lane.running = RunningMoments(origin.definitions, origin.grid, device, origin.projections, self.part)
            if state:
                lane.running.restore(state)

    def end_cell(self, subsets: tuple[str, ...], scratch: Path | None) -> None:
        for lane in self.lanes:
            running, lane.running = lane.running, None
            shelf = ShelvedMoments(running, scratch) if running is not None and running.count else None
            lane.cells.append((lane.subsets(subsets), shelf))

    def finish(self, progress: Callable[[], None]) -> None:
        """Merge the image groups into subsets and write their statistics to the sink."""
        for subset, definition in self.maps():
            members = (shelf.moments(definition) for cell, shelf in self._shelves() if subset in cell)
            moments = reduce(Moments.merge, members)
            with stage("write"):
                self.sink.add_statistics(subset, definition, _statistics(moments, self.provenance))
            progress()

    def maps(self) -> list[tuple[str, str]]:
        """List the (subset, definition) pairs, each of which has a map."""
        subsets = dict.fromkeys(name for cell, _ in self._shelves() for name in cell)
        return list(product(subsets, self.provenance.definitions))

    def _shelves(self) -> list[tuple[tuple[str, ...], ShelvedMoments]]:
        return [(cell, shelf) for lane in self.lanes for cell, shelf in lane.cells if shelf]

    def close(self) -> None:
        """Close the temporary files."""
        for _, shelf in self._shelves():
            shelf.close()


@dataclass
class Run:
    """One run: its fixed configuration, and the state of what it has processed."""

    gradients: BatchGradients
    taps: Sequence[Tap]
    way: Way
    first_batch_size: int
    """Images per pass before the self-check."""
    settings: Settings
    scratch: Path | None
    images: ImageSet
    checkpoint: Checkpoint | None
    saved: Saved | None
    """Saved progress of an earlier run, from which this one resumes."""
    stop: Callable[[], bool]
    done: int = 0
    visited: int = 0
    """Number of images processed in the current group."""
    failures: list[str] = field(default_factory=list)
    taken: list[tuple[ImageRecord, Footprint]] = field(default_factory=list)
    """Records and per-image profiles for the test whether there are enough images; empty without `until`."""
    cancelled: bool | None = None
    """Whether the channels of a unit sum to zero; None until it has been tested."""
    ends: dict[int, str] = field(default_factory=dict)
    """Where the gradient ends, by index of the tap; filled on demand."""

    def __post_init__(self) -> None:
        self.batch_size = self.way.batch_size
        self.upload = Uploader.to(self.gradients.device)

    @property
    def lanes(self) -> list[Lane]:
        return [lane for tap in self.taps for lane in tap.lanes]

    def begin(self) -> None:
        """Start the run, or resume it from saved progress."""
        saved = self.saved
        if saved:
            self._check_same(saved)
        inputs = len(self.taps[0].lanes)
        for place, tap in enumerate(self.taps):
            if saved:
                tap.provenance = saved.provenance[place * inputs]
            tap.sink.begin(tap.provenance)
        if saved:
            self._restore(saved)

    def _provenance(self) -> list[Provenance]:
        """Provenance by accumulator."""
        return [tap.provenance for tap in self.taps for _ in tap.lanes]

    def _identity(self) -> dict[str, Any]:
        ids = "\n".join(f"{image.id}\t{image.path}" for image in self.images.images)
        images = sha256(ids.encode()).hexdigest()
        return {"images": images, "batch size": self.first_batch_size, "way": asdict(self.way)}

    def _check_same(self, saved: Saved) -> None:
        assert self.checkpoint is not None
        unlike = differences(saved, self._provenance(), self._identity())
        records = (row.record for row, *_ in saved.rows())
        unlike += changed_images(self.images, records, self.checkpoint.saved_at())
        if unlike:
            raise CheckpointError(
                f"the progress in {self.checkpoint.folder} is of another run: other {'; '.join(unlike)}"
            )

    def _restore(self, saved: Saved) -> None:
        for rows in saved.rows():
            self._hand_over(rows)
            self.done += 1
        for subsets, read in saved.cells:
            self._begin_cell(read())
            for tap in self.taps:
                tap.end_cell(subsets, self.scratch)
        if saved.running:
            self._begin_cell(saved.running)
        self.visited = saved.visited

    def _begin_cell(self, states: Sequence[Sums] = ()) -> None:
        given = iter(states)
        for tap in self.taps:
            tap.begin_cell(sums_device(self.gradients.device), [next(given, None) for _ in tap.lanes])

    def _save(self) -> None:
        assert self.checkpoint is not None

        def sums(cell: int) -> list[Sums]:
            return [shelf.state() for lane in self.lanes if (shelf := lane.cells[cell][1])]

        first = self.lanes[0]
        cells = [(tuple(subsets), partial(sums, number)) for number, (subsets, _) in enumerate(first.cells)]
        self.checkpoint.save(
            self._provenance(),
            self._identity(),
            [(without_input(subsets), read) for subsets, read in cells],
            [lane.running.state() for lane in self.lanes if lane.running],
            self.visited,
        )

    def visit(self, rounds: Sequence[Sequence[Cell]], workers: int, progress: Progress | None) -> None:
        """Process the images round by round until there are enough; one group's sums are in memory at a time.

        Args:
            rounds: image groups by round; with `settings.until`, precision is tested after each round.
            workers: threads that decode ahead.
            progress: called after each image.

        Raises:
            InterruptedRunError: the run was asked to stop; its progress is saved if there is a checkpoint.
            ImageError: with `strict`, an image cannot be used.
        """
        finished, number = len(self.lanes[0].cells), 0
        for cells in rounds:
            for cell in cells:
                if number >= finished:
                    self._visit_cell(cell, workers, progress)
                number += 1
            if self.settings.until and self._are_enough(self.settings.until):
                break

    def _are_enough(self, precision: "Precision") -> bool:
        if not self.taken:
            return False
        records, footprints = zip(*self.taken, strict=True)
        observed = observe_images(self.taps[-1].provenance, records, stack_footprints(footprints))
        return precision.is_reached(precision.estimate(observed))

    def _visit_cell(self, cell: Cell, workers: int, progress: Progress | None) -> None:
        if self.lanes[0].running is None:
            self._begin_cell()
        with closing(ahead(self._prepared, cell.images[self.visited :], workers)) as stream:
            while batch := list(islice(stream, self.batch_size)):
                for _ in self._outcomes(batch, cell.subsets):
                    self.done += 1
                    if progress:
                        progress("images", self.done, len(self.images))
                self.visited += len(batch)
                del batch  # otherwise its images stay in memory while waiting for the next
                self._pause()
        for tap in self.taps:
            tap.end_cell(cell.subsets, self.scratch)
        self.visited = 0

    def _prepared(self, image: Image) -> Located | Failure:
        """Decode an image and start its upload to the device."""
        sample = self.images.sample(image)
        located = self.gradients.locate(sample) if isinstance(sample, Sample) else sample
        return replace(located, upload=self.upload(located.sample.pixels)) if isinstance(located, Located) else located

    def _pause(self) -> None:
        stopping = self.stop()
        if self.checkpoint and (stopping or self.checkpoint.is_due()):
            with stage("write"):
                self._save()
        if stopping:
            raise InterruptedRunError(f"interrupted after {self.done} of {len(self.images)} images")

    def _outcomes(self, batch: Sequence[Located | Failure], subsets: tuple[str, ...]) -> Iterator[None]:
        """Process the images of a batch, and yield after each."""
        found = self._gradients([item for item in batch if not isinstance(item, Failure)])
        for item in batch:
            if isinstance(item, Failure):
                self._reject(item, subsets)
            else:
                self._take_in(item.sample, subsets, found.pop(0))
            yield

    def _gradients(self, located: Sequence[Located]) -> list[Found]:
        """Compute the gradients of each sample."""
        if len(located) not in (1, self.batch_size):
            # The self-check covered only these batch sizes.
            return [found for item in located for found in self._gradients([item])]
        try:
            self._note_of_norm(located[0])
            with stage("pass"):
                found = self.gradients.of(located)
                synchronise(self.gradients.device)
                return found
        except NoGradientError as error:
            place = next(place for place, tap in enumerate(self.taps) if tap.provenance.layer == error.layer)
            raise LayerError(f"{error}{self._end_of_gradient(located[0].sample, place)}") from error
        except (MemoryError, RuntimeError) as error:
            if len(located) == 1 or not is_memory_error(error):
                raise
        self.batch_size = 1  # from now on
        return self._gradients(located)

    def _note_of_norm(self, item: Located) -> None:
        """Test once whether the channels of a unit sum to zero, as they do after an untrained layer norm."""
        if self.cancelled is None and self.settings.channel == ALL_CHANNELS:
            found = self.gradients.values([item])
            self.cancelled = any(float(one.sum().abs()) < _NOTHING * float(one.abs().sum()) for one in found)

    def _take_in(self, sample: Sample, subsets: tuple[str, ...], found: "Found") -> None:
        edges = [_edges(draws) for draws in found.gradients]
        if not np.isfinite(edges).all():
            place = next(place for place, ends in enumerate(edges) if not np.isfinite(ends).all())
            where = self._end_of_gradient(sample, place)
            reason = f"{sample.image.path}: the gradient is NaN or infinite{where}; look at weights and normalisation"
            self._reject(Failure(sample.image, reason), subsets)
            return
        rows = []
        for place, (tap, draws, ends) in enumerate(zip(self.taps, found.gradients, edges, strict=True)):
            zero: tuple[str, ...] = ()
            if self.cancelled and not self.done:
                zero = (_CANCELLED,)
            elif not any(ends) and not self.cancelled:
                zero = (f"the gradient is zero everywhere{self._end_of_gradient(sample, place)}",)
            unit = found.units[place] if found.units else None
            for index, lane in enumerate(tap.lanes):
                one = sample.parts[index] if sample.parts else sample
                record = _record(one, sample.image, lane, subsets, unit, zero)
                assert lane.running is not None
                with stage("accumulate"):
                    footprints = lane.running.add([draw[lane.channels] for draw in draws])
                with stage("thumbnail"):
                    rows.append(Row(record, footprints, self._overview(one, place, unit)))
        self._note(rows)

    def _end_of_gradient(self, sample: Sample, place: int) -> str:
        """Describe where the gradient of a tap ends; determined once, on the first image for which it is needed."""
        if place not in self.ends:
            gradients = self.gradients
            inputs = torch.from_numpy(sample.pixels[None]).to(gradients.like)
            target, arrange = gradients.tapped[place].target, self.settings.arguments
            self.ends[place] = gradient_end(gradients.model, inputs, target, arrange)
        return f": {self.ends[place]}" if self.ends[place] else ""

    def _overview(self, sample: Sample, place: int, unit: Unit | None) -> Overview:
        """Make the overview of an image, shifted like its map; black where maps of several units are averaged."""
        origin, pixels = self.taps[place].provenance, sample.pixels
        if self.settings.moves and unit is None:
            return blank_overview(origin)
        if self.settings.arguments.names and not sample.parts:
            pixels = pixels[:1]
        if unit is not None and any(by := self.gradients.tapped[place].shift(unit)):
            pixels = moved(torch.from_numpy(pixels), by, float(pixels.min())).numpy()
        seen = Overview(*overview(pixels, origin.small_block))
        return seen if self.images.thumbnails else replace(seen, thumbnail=np.zeros_like(seen.thumbnail))

    def _reject(self, failure: Failure, subsets: tuple[str, ...]) -> None:
        if self.settings.strict:
            raise ImageError(failure.reason)
        image = failure.image
        rows = []
        for lane in self.lanes:
            record = _described(image, image, lane, subsets)
            rows.append(Row(replace(record, status="failed", message=failure.reason), {}, None))
        self._note(rows)

    def _note(self, rows: Sequence[Row]) -> None:
        self._hand_over(rows)
        if self.checkpoint:
            self.checkpoint.add(rows)

    def _hand_over(self, rows: Sequence[Row]) -> None:
        """Write the rows of one processed image, one per accumulator, to the sinks."""
        sinks = [tap.sink for tap in self.taps for _ in tap.lanes]
        for sink, row in zip(sinks, rows, strict=True):
            with stage("write"):
                sink.add_image(row.record, row.footprints, row.overview)
        last = rows[-1]
        if last.record.status != "ok":
            self.failures.append(last.record.message)
        elif self.settings.until:
            self.taken.append((last.record, last.footprints[self.taps[-1].provenance.shown_definition]))

    def finish(self, progress: Progress | None) -> tuple[ERF, ...]:
        """Write the maps of every tap to its sink and return the results.

        Raises:
            ImageError: no image could be used.
        """
        maps = sum(len(tap.maps()) for tap in self.taps)
        if not maps:
            raise ImageError(f"none of {len(self.failures)} images could be used; the first: {self.failures[0]}")
        done = count(1)
        for tap in self.taps:
            tap.finish(lambda: progress("maps", next(done), maps) if progress else None)
        with stage("write"):
            return tuple(tap.sink.result() for tap in self.taps)

    def close(self) -> None:
        """Close the temporary files."""
        for tap in self.taps:
            tap.close()


def cells_of(images: Sequence[Image], settings: Settings) -> list[list[Cell]]:
    """Group images by their subsets, round by round.

    There is more than one round only if the run may stop before its last image (`settings.until`).
    """

    def subsets(image: Image) -> tuple[str, ...]:
        values = [f"{column}={value}" for column in settings.subset_by if (value := image.value(column))]
        return ("all", *filter(None, [image.laterality]), *values)

    return [
        [Cell(names, tuple(members)) for names, members in groupby(sorted(part, key=subsets), key=subsets)]
        for part in (rounds(images) if settings.until else [images])
    ]


def rounds(images: Sequence[Image]) -> list[list[Image]]:
    """Split images into rounds that grow by half, sides alternating, so that every prefix is balanced."""
    order = interleaved(np.array([image.laterality for image in images]))
    ends = [_FIRST_ROUND]
    while ends[-1] < len(images):
        ends.append(ends[-1] + max(1, ends[-1] // 2))
    return [[images[row] for row in order[start:end]] for start, end in pairwise([0, *ends])]


def _edges(gradients: Sequence[Tensor]) -> list[float]:
    """Return minimum and maximum of each gradient, in one transfer from the device."""
    edges: list[float] = torch.stack([edge for one in gradients for edge in torch.aminmax(one)]).tolist()
    return edges


def _statistics(moments: Moments, origin: Provenance) -> Statistics:
    """Return the maps of the whole image, which are zero outside the window."""
    _, height, width = origin.input_shape
    top, bottom, left, right = origin.window
    kept = np.float32 if origin.shard == (1, 1) else np.float64  # shards are merged
    return moments.statistics(kept, ((top, height - bottom), (left, width - right)))


def _record(
    sample: Sample, case: Image, lane: Lane, subsets: tuple[str, ...], unit: Unit | None, notes: tuple[str, ...]
) -> ImageRecord:
    """Build the record of an image that was used."""
    record = _described(sample.image, case, lane, subsets)
    columns = dict(record.columns) | ({"unit": ",".join(map(str, unit))} if unit is not None else {})
    return replace(record, message="; ".join(sample.notes + notes), sha256=sample.sha256, columns=columns)


def _described(image: Image, case: Image, lane: Lane, subsets: tuple[str, ...]) -> ImageRecord:
    columns = dict(image.columns) | ({"input": lane.name} if lane.name else {})
    return ImageRecord(
        id=f"{image.id}:{lane.name}" if lane.name else image.id,
        path=image.path,
        laterality=image.laterality,
        view=image.view,
        patient_id=image.patient_id or case.patient_id,
        status="ok",
        pixel_spacing=image.pixel_spacing,
        columns=columns,
        subsets=lane.subsets(subsets),
        number=case.number,
    )
