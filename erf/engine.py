"""The run: images in, statistics of unit gradients out."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial, reduce
from hashlib import sha256
from importlib import metadata
from itertools import count, groupby, islice, pairwise, product
from pathlib import Path
from platform import python_version
from shutil import disk_usage
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from erf.backward import input_gradients_only
from erf.checkpoint import Checkpoint, Saved, Sums, differences
from erf.definitions import DEFAULT_DEFINITION, DEFINITIONS
from erf.devices import (
    available_memory,
    deterministic_algorithms,
    is_memory_error,
    memory_errors,
    memory_layout,
    pick_device,
)
from erf.errors import (
    CheckpointError,
    ImageError,
    InputError,
    InsufficientMemoryError,
    InterruptedRunError,
    OutputError,
)
from erf.gradients import Unit, frozen, unit_gradients
from erf.images import Failure, Image, ImageSet, Progress, Sample, overview
from erf.layers import resolve_unit
from erf.measures import interleaved, observe_images
from erf.moments import Moments, RunningMoments, ShelvedMoments, small_block
from erf.projections import Projections
from erf.result import (
    ERF,
    Footprint,
    ImageRecord,
    MemorySink,
    Origin,
    Overview,
    Provenance,
    Row,
    Sink,
    Statistics,
    stack_footprints,
)
from erf.tracing import Trace, trace
from erf.windows import Window, find_window, whole

if TYPE_CHECKING:
    from erf.intervals import Precision

_REMEDY = "use a smaller --size, fewer --definitions or a smaller --batch-size"
_PIXELS_PER_PASS, _PIXELS_PER_GPU_PASS, _LARGEST_BATCH = 2**18, 2**24, 16
"""Above these, larger batches gain little."""
_FIRST_ROUND = 12
"""Images that are taken in before it is first asked whether they are enough."""

_PACKAGES = ("erf-toolkit", "torch", "numpy", "h5py", "performer-pytorch")


def compute(
    model: nn.Module,
    images: ImageSet,
    *,
    layer: str = "final",
    unit: str | tuple[int, int] = "center",
    definitions: Sequence[str] = (DEFAULT_DEFINITION,),
    subset_by: Sequence[str] = (),
    projections: int = 1,
    device: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    deterministic: bool = False,
    strict: bool = False,
    until: "Precision | None" = None,
    window: bool = True,
    origin: Origin | None = None,
    sink: Sink | None = None,
    scratch: Path | None = None,
    progress: Progress | None = None,
) -> ERF:
    """Effective receptive field of one unit: statistics over images of its gradient with respect to the input.

    Follows Luo et al. (NIPS 2016): a unit gradient on all channels of the unit, zero elsewhere, is back-propagated to
    the input, with the model in eval mode and its parameters frozen. The signed gradient (C, H, W) of each image
    becomes a map (H, W) under each of the `definitions`, and mean and variance are taken over images, for the subsets
    `all`, `left` and `right` and, for each column in `subset_by`, `column=value`.

    Args:
        model: any module whose `layer` yields a map (N, C, h, w); it is moved to `device`.
        images: from `load_images` or `from_arrays`.
        layer: path of the module whose output holds the unit.
        definitions: one or more of `DEFINITIONS`; they share the pass, and each adds two maps to memory and file.
        unit: 'center' for (h // 2, w // 2), or (y, x) in the layer's map.
        subset_by: columns of the manifest, each value of which makes a subset.
        projections: draws of the model's random projections over which each map is the mean; each takes a pass.
        device: 'cpu', 'cuda', 'mps' or 'auto'.
        batch_size: images per pass; None for as many small ones as make a pass efficient, and one that is large. Where
            memory runs out, a batch is halved.
        workers: threads that decode ahead; None for one beside a CPU and four beside a GPU.
        deterministic: use only algorithms that give the same bits each time.
        strict: stop at the first image that cannot be used, instead of passing over it.
        until: stop as soon as a measure is known so precisely; otherwise all images are taken in.
        window: where the theoretical receptive field is finite, give the network only the part of the image that holds
            it; the gradient is the same, and is had sooner.
        origin: what only the caller knows, for the record.
        sink: where the run is put, such as a `FileSink`; by default it is collected in memory.
        scratch: folder for sums that are set aside, by default the system's.
        progress: called with a stage (`images`, then `maps`), how many of them are done, and how many there are.

    Raises:
        LayerError: the layer or unit does not exist, or yields no map.
        ImageError: with `strict`, an image cannot be used; without, all of them cannot.
        InsufficientMemoryError: the run does not fit into memory.
    """
    settings = Settings(
        unit=unit,
        definitions=tuple(definitions),
        subset_by=tuple(subset_by),
        projections=projections,
        device=device,
        batch_size=batch_size,
        workers=workers,
        deterministic=deterministic,
        strict=strict,
        until=until,
        window=window,
    )
    sinks = None if sink is None else [sink]
    (erf,) = compute_layers(
        model, images, [layer], settings, origin=origin, sinks=sinks, scratch=scratch, progress=progress
    )
    return erf


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a run goes; the same as the arguments of `compute`."""

    unit: str | tuple[int, int] = "center"
    definitions: tuple[str, ...] = (DEFAULT_DEFINITION,)
    subset_by: tuple[str, ...] = ()
    projections: int = 1
    device: str = "auto"
    batch_size: int | None = None
    workers: int | None = None
    deterministic: bool = False
    strict: bool = False
    until: "Precision | None" = None
    window: bool = True

    def __post_init__(self) -> None:
        unknown = [name for name in self.definitions if name not in DEFINITIONS]
        if unknown or not self.definitions:
            found = ", ".join(unknown) or "none"
            raise InputError(f"definitions: found {found}; expected some of {', '.join(DEFINITIONS)}")
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"batch size {self.batch_size}; expected at least 1")


def compute_layers(
    model: nn.Module,
    images: ImageSet,
    layers: Sequence[str],
    settings: Settings | None = None,
    *,
    origin: Origin | None = None,
    sinks: Sequence[Sink] | None = None,
    scratch: Path | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[ERF, ...]:
    """The ERFs of one unit of each of several layers, from one forward pass per image and a backward pass for each.

    Arguments and errors are those of `compute`; `until` asks for the measure of the last layer. With a `checkpoint`,
    the run goes on from the progress that is there and saves its own; `stop` is asked after each batch whether to save
    and raise `InterruptedRunError`. `CheckpointError` is raised for progress of another run.
    """
    settings = settings or Settings()
    if not layers or len(set(layers)) < len(layers):
        raise InputError(f"layers: found {', '.join(layers) or 'none'}; expected one or more, each once")
    sinks = [MemorySink() for _ in layers] if sinks is None else sinks
    chosen = pick_device(settings.device)
    origin = origin or Origin(model=type(model).__name__)
    with memory_errors(_REMEDY):
        shape = images.framing.shape
        least = settings.batch_size or 1
        needed = len(layers) * _sums_and_gradients(shape, settings, least) + _images(shape, least)
        _check_memory(needed, images.framing.size, chosen)
        traces = trace(model.to(chosen), layers, shape)
        units = {name: resolve_unit(settings.unit, name, traced.feature_shape[1:]) for name, traced in traces.items()}
        window = find_window(model, traces, units, shape) if settings.window else whole(shape[1:], units)
        # Autograd keeps between half and all of the maps on the way.
        kept = max(traced.activation_bytes for traced in traces.values()) // 2 * window.share(shape[1:])
        _check_memory(needed + int(least * kept), images.framing.size, chosen)
        batch_size = settings.batch_size or _batch_size(window, chosen, (needed + int(kept)))
        draws = Projections(model, settings.projections, origin.seed)
        taps = [
            _Tap(
                _provenance(origin, images, layer, traces[layer], units[layer], window, settings, chosen),
                sink,
                window.part,
            )
            for layer, sink in zip(layers, sinks, strict=True)
        ]
        if settings.until and taps[0].provenance.shown_definition == "signed":
            raise InputError("until: definition 'signed' has negative values, which measures cannot weigh; use abs")
        if settings.until and images.part != (1, 1):
            raise InputError("until: a shard cannot tell when all shards are enough; leave one of them out")
        run = _Run(model, draws, taps, window, batch_size, settings, chosen, scratch, images, checkpoint, stop)
        rounds = _rounds(images.images) if settings.until else [images.images]
        cells = len(taps) * sum(len({run.subsets(image) for image in members}) for members in rounds)
        _check_scratch(cells, taps[0].provenance, scratch)
        with closing(run):
            run.begin()
            with (
                frozen(model, memory_layout(chosen)),
                input_gradients_only(model, phases=chosen.type == "cpu"),
                deterministic_algorithms(settings.deterministic),
            ):
                run.visit(rounds, _workers(settings.workers, chosen), progress)
            run.finish(progress)
    return tuple(tap.sink.result() for tap in taps)


@dataclass
class _Tap:
    """One unit of one layer: what is known of it, the sums of the cell at hand, and the cells that are finished."""

    provenance: Provenance
    sink: Sink
    part: tuple[int, int, int, int]
    """Of the image, which the sums cover."""
    running: RunningMoments | None = None
    cells: list[tuple[tuple[str, ...], ShelvedMoments | None]] = field(default_factory=list)
    """Subsets and sums; None where no image could be used."""

    def begin_cell(self, device: torch.device, state: Sums | None = None) -> None:
        origin = self.provenance
        self.running = RunningMoments(origin.definitions, origin.input_shape[1:], device, origin.projections, self.part)
        if state:
            self.running.restore(state)

    def end_cell(self, subsets: tuple[str, ...], scratch: Path | None) -> None:
        shelf = ShelvedMoments(self.running, scratch) if self.running is not None and self.running.count else None
        self.cells.append((subsets, shelf))
        self.running = None

    def add(self, gradients: Sequence[Tensor]) -> dict[str, Footprint]:
        """Take in the gradients of one image, one per draw of projections."""
        assert self.running is not None
        return self.running.add(gradients)

    def finish(self, progress: Callable[[], None]) -> None:
        """Merge the cells into subsets and hand them over."""
        for subset, definition in self.maps():
            members = (shelf.moments(definition) for cell, shelf in self.cells if shelf and subset in cell)
            moments = reduce(Moments.merge, members)
            self.sink.add_statistics(subset, definition, _statistics(moments, self.provenance))
            progress()

    def maps(self) -> list[tuple[str, str]]:
        """Subsets and definitions, each of which has a map."""
        subsets = dict.fromkeys(name for cell, shelf in self.cells if shelf for name in cell)
        return list(product(subsets, self.provenance.definitions))


@dataclass
class _Run:
    """The state of one run: what is fixed, and what was taken in."""

    model: nn.Module
    draws: Projections
    taps: Sequence[_Tap]
    window: Window
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

    def __post_init__(self) -> None:
        self.first_batch_size = self.batch_size

    def begin(self) -> None:
        """Start, or go on from the progress that was saved."""
        saved = self.checkpoint.load() if self.checkpoint and self.checkpoint.exists() else None
        if saved:
            if self.settings.batch_size is None:
                self.batch_size = self.first_batch_size = int(saved.identity["batch size"])
            self._check_same(saved)
        for place, tap in enumerate(self.taps):
            if saved:
                tap.provenance = saved.provenance[place]
            tap.sink.begin(tap.provenance)
        if saved:
            self._restore(saved)

    def _identity(self) -> dict[str, Any]:
        ids = "\n".join(f"{image.id}\t{image.path}" for image in self.images.images)
        return {"images": sha256(ids.encode()).hexdigest(), "batch size": self.first_batch_size}

    def _check_same(self, saved: Saved) -> None:
        assert self.checkpoint is not None
        unlike = differences(saved, [tap.provenance for tap in self.taps], self._identity())
        known = {image.id: image for image in self.images.images}
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
        device = _sums_device(self.device)
        for subsets, read in saved.cells:
            sums = read()
            for place, tap in enumerate(self.taps):
                tap.begin_cell(device, sums[place] if sums else None)
                tap.end_cell(subsets, self.scratch)
        for tap, state in zip(self.taps, saved.running, strict=False):
            tap.begin_cell(device, state)
        self.visited = saved.visited

    def _save(self) -> None:
        assert self.checkpoint is not None

        def sums(cell: int) -> list[Sums]:
            return [shelf.state() for tap in self.taps if (shelf := tap.cells[cell][1])]

        self.checkpoint.save(
            [tap.provenance for tap in self.taps],
            self._identity(),
            [(subsets, partial(sums, cell)) for cell, (subsets, _) in enumerate(self.taps[0].cells)],
            [tap.running.state() for tap in self.taps if tap.running],
            self.visited,
        )

    def visit(self, rounds: Sequence[Sequence[Image]], workers: int, progress: Progress | None) -> None:
        """Take in images, round by round, until there are enough of them.

        Within a round they go cell by cell, so that one cell's sums are in memory at a time.
        """
        finished, cell = len(self.taps[0].cells), 0
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
        for tap in self.taps:
            if tap.running is None:
                tap.begin_cell(_sums_device(self.device))
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
        gradients = self._gradients([item for item in batch if isinstance(item, Sample)])
        for item in batch:
            if isinstance(item, Sample):
                self._take_in(item, subsets, gradients.pop(0))
            else:
                self._reject(item, subsets)
            yield

    def _gradients(self, samples: Sequence[Sample]) -> list[list[list[Tensor]]]:
        """Gradients (C, H, W) by sample, tap and draw of projections, on the device where the sums are kept."""
        if not samples:
            return []
        try:
            return self._pass(samples)
        except (MemoryError, RuntimeError) as error:
            if len(samples) == 1 or not is_memory_error(error):
                raise
        self.batch_size = len(samples) // 2  # from now on
        return self._gradients(samples[: self.batch_size]) + self._gradients(samples[self.batch_size :])

    def _pass(self, samples: Sequence[Sample]) -> list[list[list[Tensor]]]:
        pixels = samples[0].pixels[None] if len(samples) == 1 else np.stack([sample.pixels for sample in samples])
        parameter = next(self.model.parameters(), None)
        dtype = torch.float32 if parameter is None else parameter.dtype
        inputs = self.window.cut(torch.from_numpy(pixels)).to(self.device, dtype).contiguous()
        found: list[list[list[Tensor]]] = [[[] for _ in self.taps] for _ in samples]
        with self.draws.each() as draws:
            for _ in draws:
                for place, gradients in enumerate(unit_gradients(self.model, inputs, self.window.units)):
                    for row, gradient in enumerate(gradients.to(_sums_device(self.device))):
                        found[row][place].append(gradient)
        return found

    def _take_in(self, sample: Sample, subsets: tuple[str, ...], gradients: list[list[Tensor]]) -> None:
        edges = [[float(edge) for one in draws for edge in torch.aminmax(one)] for draws in gradients]
        if not np.isfinite(edges).all():
            reason = f"{sample.image.path}: the gradient is NaN or infinite; look at the weights and the normalisation"
            self._reject(Failure(sample.image, reason), subsets)
            return
        glance, rows = Overview(*overview(sample.pixels, self.taps[0].provenance.small_block)), []
        for tap, draws, found in zip(self.taps, gradients, edges, strict=True):
            notes = sample.notes + (("the gradient is zero everywhere",) if not any(found) else ())
            record = _record(sample.image, subsets, "ok", "; ".join(notes), sample.sha256)
            rows.append(Row(record, tap.add(draws), glance))
        self._note(rows)

    def _reject(self, failure: Failure, subsets: tuple[str, ...]) -> None:
        if self.settings.strict:
            raise ImageError(failure.reason)
        record = _record(failure.image, subsets, "failed", failure.reason)
        self._note([Row(record, {}, None) for _ in self.taps])

    def _note(self, rows: Sequence[Row]) -> None:
        self._hand_over(rows)
        if self.checkpoint:
            self.checkpoint.add(rows)

    def _hand_over(self, rows: Sequence[Row]) -> None:
        """An image was visited; rows are by tap."""
        for tap, row in zip(self.taps, rows, strict=True):
            tap.sink.add_image(row.record, row.footprints, row.overview)
        last = rows[-1]
        if last.record.status != "ok":
            self.failures.append(last.record.message)
        elif self.settings.until:
            self.taken.append((last.record, last.footprints[self.taps[-1].provenance.shown_definition]))

    def finish(self, progress: Progress | None) -> None:
        """Hand over the maps of every tap."""
        maps = sum(len(tap.maps()) for tap in self.taps)
        if not maps:
            raise ImageError(f"none of {len(self.failures)} images could be used; the first: {self.failures[0]}")
        done = count(1)
        for tap in self.taps:
            tap.finish(lambda: progress("maps", next(done), maps) if progress else None)

    def close(self) -> None:
        """Let go of the sums that were set aside."""
        for tap in self.taps:
            for _, shelf in tap.cells:
                if shelf:
                    shelf.close()


def _has_changed(image: Image, sha256: str, since: float) -> bool:
    """Whether a file that was used has other content by now; it is read only where it was touched."""
    if not (sha256 and image.file and image.file.is_file() and image.file.stat().st_mtime > since):
        return False
    try:
        return image.decode().sha256 != sha256
    except ImageError:
        return True


def _rounds(images: Sequence[Image]) -> list[list[Image]]:
    """Images in rounds that grow by half, sides in turn, so that every beginning is balanced."""
    order = interleaved(np.array([image.laterality for image in images]))
    ends = [_FIRST_ROUND]
    while ends[-1] < len(images):
        ends.append(ends[-1] + max(1, ends[-1] // 2))
    return [[images[row] for row in order[start:end]] for start, end in pairwise([0, *ends])]


def _statistics(moments: Moments, origin: Provenance) -> Statistics:
    """Maps of the whole image, which are zero outside the window."""
    _, height, width = origin.input_shape
    top, bottom, left, right = origin.window
    kept = np.float32 if origin.shard == (1, 1) else np.float64  # shards are merged
    return moments.statistics(kept, ((top, height - bottom), (left, width - right)))


def _record(image: Image, subsets: tuple[str, ...], status: str, message: str, sha256: str = "") -> ImageRecord:
    return ImageRecord(
        id=image.id,
        path=image.path,
        laterality=image.laterality,
        view=image.view,
        patient_id=image.patient_id,
        status=status,
        message=message,
        sha256=sha256,
        pixel_spacing=image.pixel_spacing,
        columns=image.columns,
        subsets=subsets,
        number=image.number,
    )


def _provenance(
    origin: Origin,
    images: ImageSet,
    layer: str,
    traced: Trace,
    unit: Unit,
    window: Window,
    settings: Settings,
    device: torch.device,
) -> Provenance:
    return Provenance(
        **vars(origin),
        layer=layer,
        unit=unit,
        unit_center=traced.field.center(unit),
        input_shape=images.framing.shape,
        feature_shape=traced.feature_shape,
        field_size=traced.field.extent(unit),
        field_shift=traced.field.shift(unit),
        field_stride=traced.field.stride,
        depth=traced.depth,
        window=window.part,
        field_kind=traced.field.kind,
        definitions=settings.definitions,
        normalisation=images.framing.normalisation,
        resample=images.framing.resample,
        mirrored=images.framing.mirror,
        projections=settings.projections,
        shard=images.part,
        small_block=small_block(images.framing.size),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        deterministic=settings.deterministic,
        versions={"python": python_version()} | {name: _version(name) for name in _PACKAGES},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _sums_and_gradients(shape: tuple[int, int, int], settings: Settings, batch_size: int) -> int:
    """Bytes of two float64 sums per definition and of the gradients in float32, of one layer."""
    pixels = shape[1] * shape[2]
    return (2 * 8 * len(settings.definitions) + 4 * settings.projections * batch_size * shape[0]) * pixels


def _images(shape: tuple[int, int, int], batch_size: int) -> int:
    """Bytes of a batch of images and of the one ahead, in float32."""
    return 2 * 4 * batch_size * shape[0] * shape[1] * shape[2]


def _batch_size(window: Window, device: torch.device, needed: int) -> int:
    """As many images as fill a pass, or a quarter of the memory; `needed` are the bytes that one takes."""
    filling = (_PIXELS_PER_PASS if device.type == "cpu" else _PIXELS_PER_GPU_PASS) // (
        window.shape[0] * window.shape[1]
    )
    return max(1, min(filling, _LARGEST_BATCH, available_memory(device) // (4 * needed)))


def _check_memory(needed: int, size: tuple[int, int], device: torch.device) -> None:
    available = available_memory(device)
    if needed > available:
        raise InsufficientMemoryError(
            f"a run at {size[0]}x{size[1]} needs at least {needed / 1e9:.1f} GB on {device.type}, "
            f"{available / 1e9:.1f} GB are free; {_REMEDY}"
        )


def _check_scratch(cells: int, provenance: Provenance, folder: Path | None) -> None:
    """Refuse more cells than the disk has room for: each sets down two float64 sums per definition."""
    place = folder or Path(gettempdir())
    pixels = provenance.input_shape[1] * provenance.input_shape[2]
    needed, free = cells * 2 * 8 * len(provenance.definitions) * pixels, disk_usage(place).free
    if needed > free:
        raise OutputError(
            f"{cells} groups of images set {needed / 1e9:.1f} GB of sums aside, {free / 1e9:.1f} GB are free in "
            f"{place}; use subsets with fewer values, or fewer --definitions"
        )


def _sums_device(device: torch.device) -> torch.device:
    """Where float64 sums are kept: MPS has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def _workers(workers: int | None, device: torch.device) -> int:
    return (1 if device.type == "cpu" else 4) if workers is None else workers
