"""One run: images in, sums of unit gradients, and all that is handed to the sinks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from hashlib import sha256
from itertools import count, groupby, islice, pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from erf.checkpoint import Checkpoint, Saved, Sums, differences
from erf.devices import is_memory_error
from erf.diagnosis import gradient_end
from erf.errors import CheckpointError, ImageError, InterruptedRunError, LayerError, NoGradientError
from erf.gradients import Target, reduced_precision, strongest_units, unit_values
from erf.images import Failure, Image, ImageSet, Progress, Sample, overview
from erf.layers import Unit
from erf.measures import interleaved, observe_images
from erf.methods import attributions
from erf.moments import Moments, RunningMoments, ShelvedMoments
from erf.passes import Pass
from erf.projections import Projections
from erf.result import (
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
from erf.settings import ALL_CHANNELS, SIGNS, Settings
from erf.tracing import Trace
from erf.units import MAX, unit_of_image

if TYPE_CHECKING:
    from erf.intervals import Precision

_NOTHING = 1e-5
"""Of the sum of absolute values: a sum that is rounding."""
_CANCELLED = (
    "the channels of a unit sum to nothing, as behind an untrained layer norm, so that the gradient on all of them is "
    "rounding; choose the layer before the norm, or one --channel"
)

_FIRST_ROUND = 12
"""Images that are taken in before it is first asked whether they are enough."""


@dataclass
class Lane:
    """What is summed for one input of the network: the cell at hand, and the cells that are finished."""

    name: str
    channels: slice
    """Of the image, those of this input."""
    running: RunningMoments | None = None
    cells: list[tuple[tuple[str, ...], ShelvedMoments | None]] = field(default_factory=list)
    """Subsets and sums; None where no image could be used."""

    def subsets(self, subsets: tuple[str, ...]) -> tuple[str, ...]:
        """Those of an image, and that of this input."""
        return (*subsets, input_subset(self.name)) if self.name else subsets


@dataclass
class Tap:
    """One unit of one layer, or the units of all images: what is known of it, and its sums for each input."""

    provenance: Provenance
    sink: Sink
    part: tuple[int, int, int, int]
    """Of the image, which the sums cover."""
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
        """Merge the cells into subsets and hand them over."""
        for subset, definition in self.maps():
            members = (shelf.moments(definition) for cell, shelf in self._shelves() if subset in cell)
            moments = reduce(Moments.merge, members)
            self.sink.add_statistics(subset, definition, _statistics(moments, self.provenance))
            progress()

    def maps(self) -> list[tuple[str, str]]:
        """Subsets and definitions, each of which has a map."""
        subsets = dict.fromkeys(name for cell, _ in self._shelves() for name in cell)
        return list(product(subsets, self.provenance.definitions))

    def _shelves(self) -> list[tuple[tuple[str, ...], ShelvedMoments]]:
        return [(cell, shelf) for lane in self.lanes for cell, shelf in lane.cells if shelf]

    def close(self) -> None:
        """Let go of the sums that were set aside."""
        for _, shelf in self._shelves():
            shelf.close()


@dataclass
class Run:
    """The state of one run: what is fixed, and what was taken in."""

    model: nn.Module
    draws: Projections
    taps: Sequence[Tap]
    passes: Sequence[Pass]
    traces: Sequence[Trace]
    """Of the layers of the taps."""
    batch_size: int
    settings: Settings
    device: torch.device
    scratch: Path | None
    images: ImageSet
    checkpoint: Checkpoint | None
    stop: Callable[[], bool]
    done: int = 0
    visited: int = 0
    """Images of the cell at hand."""
    failures: list[str] = field(default_factory=list)
    taken: list[tuple[ImageRecord, Footprint]] = field(default_factory=list)
    """What tells whether images are enough; empty where nobody asks."""
    cancelled: bool | None = None
    """Whether the channels of a unit sum to nothing; None until that was looked at."""
    ends: dict[int, str] = field(default_factory=dict)
    """By tap, where the gradient ends, once that was asked."""

    def __post_init__(self) -> None:
        self.first_batch_size = self.batch_size

    @property
    def lanes(self) -> list[Lane]:
        return [lane for tap in self.taps for lane in tap.lanes]

    def begin(self) -> None:
        """Start, or go on from the progress that was saved."""
        saved = self.checkpoint.load() if self.checkpoint and self.checkpoint.exists() else None
        if saved:
            if self.settings.batch_size is None:
                self.batch_size = self.first_batch_size = int(saved.identity["batch size"])
            self._check_same(saved)
        inputs = len(self.taps[0].lanes)
        for place, tap in enumerate(self.taps):
            if saved:
                tap.provenance = saved.provenance[place * inputs]
            tap.sink.begin(tap.provenance)
        if saved:
            self._restore(saved)

    def _provenance(self) -> list[Provenance]:
        """By lane."""
        return [tap.provenance for tap in self.taps for _ in tap.lanes]

    def _identity(self) -> dict[str, Any]:
        ids = "\n".join(f"{image.id}\t{image.path}" for image in self.images.images)
        return {"images": sha256(ids.encode()).hexdigest(), "batch size": self.first_batch_size}

    def _check_same(self, saved: Saved) -> None:
        assert self.checkpoint is not None
        unlike = differences(saved, self._provenance(), self._identity())
        known = {one.id: one for image in self.images.images for one in image.parts or (image,)}
        for row, *_ in saved.rows():
            image = known.get(row.record.id)
            if image and _has_changed(image, row.record.sha256, self.checkpoint.saved_at()):
                unlike.append(f"content of {image.file}")
        if unlike:
            raise CheckpointError(
                f"the progress in {self.checkpoint.folder} is of another run: other {'; '.join(unlike)}; "
                "put that back, or start again with --overwrite"
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
            tap.begin_cell(sums_device(self.device), [next(given, None) for _ in tap.lanes])

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

    def visit(self, rounds: Sequence[Sequence[Image]], workers: int, progress: Progress | None) -> None:
        """Take in images, round by round, until there are enough of them.

        Within a round they go cell by cell, so that one cell's sums are in memory at a time.
        """
        finished, cell = len(self.lanes[0].cells), 0
        for members in rounds:
            for subsets, group in groupby(sorted(members, key=self.subsets), key=self.subsets):
                if cell >= finished:
                    self._visit_cell(subsets, list(group), workers, progress)
                cell += 1
            if self.settings.until and self._are_enough(self.settings.until):
                break

    def _are_enough(self, precision: "Precision") -> bool:
        if not self.taken:
            return False
        records, footprints = zip(*self.taken, strict=True)
        observed = observe_images(self.taps[-1].provenance, records, stack_footprints(footprints))
        return precision.is_reached(precision.estimate(observed))

    def _visit_cell(
        self, subsets: tuple[str, ...], members: Sequence[Image], workers: int, progress: Progress | None
    ) -> None:
        if self.lanes[0].running is None:
            self._begin_cell()
        with closing(self.images.stream(members[self.visited :], workers)) as stream:
            while batch := list(islice(stream, self.batch_size)):
                for _ in self._outcomes(batch, subsets):
                    self.done += 1
                    if progress:
                        progress("images", self.done, len(self.images))
                self.visited += len(batch)
                del batch  # else the images stay in memory while the next are waited for
                self._pause()
        for tap in self.taps:
            tap.end_cell(subsets, self.scratch)
        self.visited = 0

    def _pause(self) -> None:
        stopping = self.stop()
        if self.checkpoint and (stopping or self.checkpoint.is_due()):
            self._save()
        if stopping:
            raise InterruptedRunError(f"interrupted after {self.done} of {len(self.images)} images")

    def subsets(self, image: Image) -> tuple[str, ...]:
        """The subsets to which an image belongs."""
        values = [f"{column}={value}" for column in self.settings.subset_by if (value := image.value(column))]
        return ("all", *filter(None, [image.laterality]), *values)

    def _outcomes(self, batch: Sequence[Sample | Failure], subsets: tuple[str, ...]) -> Iterator[None]:
        """Take in the images of a batch, one by one."""
        located = [self._locate(item) if isinstance(item, Sample) else item for item in batch]
        found = self._gradients([item for item in located if not isinstance(item, Failure)])
        for item in located:
            if isinstance(item, Failure):
                self._reject(item, subsets)
            else:
                self._take_in(item[0], subsets, found.pop(0))
            yield

    def _locate(self, sample: Sample) -> "tuple[Sample, list[Unit]] | Failure":
        """A sample with the units, by tap, to which its manifest points; none where the units are known otherwise."""
        choice = self.settings.unit
        if not isinstance(choice, str) or not choice.startswith("column:"):
            return sample, []
        try:
            pairs = zip(self.taps, self.traces, strict=True)
            return sample, [
                unit_of_image(choice, sample, tap.provenance.feature_shape[1:], traced.field) for tap, traced in pairs
            ]
        except ImageError as error:
            return Failure(sample.image, str(error))

    def _gradients(self, located: "Sequence[tuple[Sample, list[Unit]]]") -> "list[Found]":
        """What was found for each sample, on the device where the sums are kept."""
        if not located:
            return []
        try:
            return self._pass(located)
        except NoGradientError as error:
            place = next(place for place, tap in enumerate(self.taps) if f"'{tap.provenance.layer}'" in str(error))
            raise LayerError(f"{error}{self._end_of_gradient(located[0][0], place)}") from error
        except (MemoryError, RuntimeError) as error:
            if len(located) == 1 or not is_memory_error(error):
                raise
        self.batch_size = len(located) // 2  # from now on
        return self._gradients(located[: self.batch_size]) + self._gradients(located[self.batch_size :])

    def _pass(self, located: "Sequence[tuple[Sample, list[Unit]]]") -> "list[Found]":
        samples = [sample for sample, _ in located]
        pixels = samples[0].pixels[None] if len(samples) == 1 else np.stack([sample.pixels for sample in samples])
        parameter = next(self.model.parameters(), None)
        dtype = torch.float32 if parameter is None else parameter.dtype
        found = [Found([[] for _ in self.taps], units) for _, units in located]
        for each in self.passes:
            inputs = each.window.cut(torch.from_numpy(pixels)).to(self.device, dtype).contiguous()
            self._note_of_norm(inputs, [replace(target, units=target.units[:1]) for target in each.window.targets])
            if self.settings.unit == MAX:
                self._find_strongest(inputs, each.window.targets, samples, found)
            with self.draws.each() as draws:
                for draw in draws:
                    targets = [
                        self._target(target, place, samples, found, draw)
                        for target, place in zip(each.window.targets, each.places, strict=True)
                    ]
                    with self._seeded(samples[0], draw), reduced_precision(self.settings.precision, self.device):
                        self._attribute(inputs, targets, each.places, found)
        return found

    def _note_of_norm(self, inputs: Tensor, targets: Sequence[Target]) -> None:
        """Look once whether the channels of a unit sum to nothing, as they do behind an untrained layer norm."""
        if self.cancelled is not None or self.settings.channel != ALL_CHANNELS:
            return
        found = unit_values(self.model, inputs[:1], targets, self.settings.arguments)
        self.cancelled = any(float(one.sum().abs()) < _NOTHING * float(one.abs().sum()) for one in found)

    def _find_strongest(
        self, inputs: Tensor, targets: Sequence[Target], samples: Sequence[Sample], found: "Sequence[Found]"
    ) -> None:
        weighted = [self._target(target, place, samples, (), 0) for place, target in enumerate(targets)]
        by_target = strongest_units(self.model, inputs, weighted, self.settings.arguments)
        for each, units in zip(found, zip(*by_target, strict=True), strict=True):
            each.units = list(units)

    def _target(
        self, target: Target, place: int, samples: Sequence[Sample], found: "Sequence[Found]", draw: int
    ) -> Target:
        """The same for these images: with units of their own, and the gradients that are put on the channels."""
        if found and found[0].units:
            target = replace(target, units=tuple(each.units[place] for each in found))
        channels, choice = self.taps[place].provenance.feature_shape[0], self.settings.channel
        if isinstance(choice, int):
            weights = torch.zeros(1, channels)
            weights[0, choice] = 1
        elif choice == SIGNS:
            weights = torch.stack([self._signs(sample.image, channels, draw) for sample in samples])
        else:
            return target
        return replace(target, weights=weights.to(self.device))

    def _signs(self, image: Image, channels: int, draw: int) -> Tensor:
        """Random signs that belong to an image, in whatever batch it comes."""
        rng = np.random.default_rng([self.taps[0].provenance.seed, image.number, draw])
        return torch.from_numpy(rng.choice(np.array([-1, 1], np.float32), channels))

    @contextmanager
    def _seeded(self, sample: Sample, draw: int) -> Iterator[None]:
        """Within, what is drawn at random belongs to the image; batches then have one image."""
        if not self.taps[0].provenance.random:
            yield
            return
        seed = np.random.SeedSequence([self.taps[0].provenance.seed, sample.image.number, draw])
        devices = [self.device] if self.device.type == "cuda" else []
        number, before = int(seed.generate_state(1)[0]), np.random.get_state()
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(number)
            np.random.seed(number)  # captum draws from it
            try:
                yield
            finally:
                np.random.set_state(before)

    def _attribute(
        self, inputs: Tensor, targets: Sequence[Target], places: Sequence[int], found: "Sequence[Found]"
    ) -> None:
        settings = self.settings
        maps = attributions(settings.method, self.model, inputs, targets, settings.arguments, settings.method_options)
        for target, place, gradients in zip(targets, places, maps, strict=True):
            for row, gradient in enumerate(gradients.to(sums_device(self.device))):
                unit = target.units[row % len(target.units)]
                found[row].gradients[place].append(self._aligned(gradient, place, unit))

    def _aligned(self, gradient: Tensor, place: int, unit: Unit) -> Tensor:
        """The gradient moved so that the unit lies where the tap has its own; as it is unless that was asked for."""
        by = self._shift(place, unit)
        return gradient if not any(by) else moved(gradient, by)

    def _shift(self, place: int, unit: Unit) -> tuple[int, int]:
        if not self.settings.moves:
            return 0, 0
        origin, here = self.taps[place].provenance, self.traces[place].field.center(unit)
        y, x = (round(there - place) for there, place in zip(origin.unit_center, here, strict=True))
        return y, x

    def _take_in(self, sample: Sample, subsets: tuple[str, ...], found: "Found") -> None:
        edges = [[float(edge) for one in draws for edge in torch.aminmax(one)] for draws in found.gradients]
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
                footprints = lane.running.add([draw[lane.channels] for draw in draws])
                rows.append(Row(record, footprints, self._overview(one, place, unit)))
        self._note(rows)

    def _end_of_gradient(self, sample: Sample, place: int) -> str:
        """In words, where the gradient of a tap ends, found out on the first image of which that is asked."""
        if place not in self.ends:
            origin = self.taps[place].provenance
            target = Target(origin.layer, (origin.unit,), self.traces[place].layout)
            parameter = next(self.model.parameters(), torch.empty(0))
            inputs = torch.from_numpy(sample.pixels[None]).to(self.device, parameter.dtype)
            self.ends[place] = gradient_end(self.model, inputs, target, self.settings.arguments)
        return f": {self.ends[place]}" if self.ends[place] else ""

    def _overview(self, sample: Sample, place: int, unit: Unit | None) -> Overview:
        """At a glance, moved as the map is; black where maps of several units are averaged."""
        origin, pixels = self.taps[place].provenance, sample.pixels
        if self.settings.moves and unit is None:
            return blank_overview(origin)
        if self.settings.arguments.names and not sample.parts:
            pixels = pixels[:1]
        if unit is not None and any(by := self._shift(place, unit)):
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
        """An image was visited; rows are by lane."""
        sinks = [tap.sink for tap in self.taps for _ in tap.lanes]
        for sink, row in zip(sinks, rows, strict=True):
            sink.add_image(row.record, row.footprints, row.overview)
        last = rows[-1]
        if last.record.status != "ok":
            self.failures.append(last.record.message)
        elif self.settings.until:
            self.taken.append((last.record, last.footprints[self.taps[-1].provenance.shown_definition]))

    def finish(self, progress: Progress | None) -> tuple[ERF, ...]:
        """Hand over the maps of every tap."""
        maps = sum(len(tap.maps()) for tap in self.taps)
        if not maps:
            raise ImageError(f"none of {len(self.failures)} images could be used; the first: {self.failures[0]}")
        done = count(1)
        for tap in self.taps:
            tap.finish(lambda: progress("maps", next(done), maps) if progress else None)
        return tuple(tap.sink.result() for tap in self.taps)

    def close(self) -> None:
        """Let go of the sums that were set aside."""
        for tap in self.taps:
            tap.close()


@dataclass
class Found:
    """What a pass found for one image."""

    gradients: list[list[Tensor]]
    """(C, H, W), by tap; of one tap one per draw of projections, or per unit over which it averages."""
    units: list[Unit]
    """By tap, where the image has units of its own."""


def rounds(images: Sequence[Image]) -> list[list[Image]]:
    """Images in rounds that grow by half, sides in turn, so that every beginning is balanced."""
    order = interleaved(np.array([image.laterality for image in images]))
    ends = [_FIRST_ROUND]
    while ends[-1] < len(images):
        ends.append(ends[-1] + max(1, ends[-1] // 2))
    return [[images[row] for row in order[start:end]] for start, end in pairwise([0, *ends])]


def sums_device(device: torch.device) -> torch.device:
    """Where float64 sums are kept: MPS has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def moved(tensor: Tensor, by: tuple[int, int], fill: float = 0.0) -> Tensor:
    """A tensor (C, H, W) moved by (y, x) pixels; what comes in at the edges is `fill`, what leaves is lost."""
    result = torch.full_like(tensor, fill)
    (to_y, from_y), (to_x, from_x) = (
        (slice(max(step, 0), length + min(step, 0)), slice(max(-step, 0), length - max(step, 0)))
        for step, length in zip(by, tensor.shape[1:], strict=True)
    )
    if all(abs(step) < length for step, length in zip(by, tensor.shape[1:], strict=True)):
        result[:, to_y, to_x] = tensor[:, from_y, from_x]
    return result


def _has_changed(image: Image, sha256: str, since: float) -> bool:
    """Whether a file that was used has other content by now; it is read only where it was touched."""
    if not (sha256 and image.file and image.file.is_file() and image.file.stat().st_mtime > since):
        return False
    try:
        return image.decode().sha256 != sha256
    except ImageError:
        return True


def _statistics(moments: Moments, origin: Provenance) -> Statistics:
    """Maps of the whole image, which are zero outside the window."""
    _, height, width = origin.input_shape
    top, bottom, left, right = origin.window
    kept = np.float32 if origin.shard == (1, 1) else np.float64  # shards are merged
    return moments.statistics(kept, ((top, height - bottom), (left, width - right)))


def _record(
    sample: Sample, case: Image, lane: Lane, subsets: tuple[str, ...], unit: Unit | None, notes: tuple[str, ...]
) -> ImageRecord:
    """Of an image that was taken in."""
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
