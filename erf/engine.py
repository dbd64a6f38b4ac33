"""The run: images in, statistics of unit gradients out."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import reduce
from importlib import metadata
from itertools import groupby, islice, pairwise, product
from pathlib import Path
from platform import python_version
from shutil import disk_usage
from tempfile import gettempdir
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from erf.definitions import DEFAULT_DEFINITION, DEFINITIONS
from erf.devices import available_memory, deterministic_algorithms, memory_errors, pick_device
from erf.errors import ImageError, InputError, InsufficientMemoryError, OutputError
from erf.gradients import frozen, unit_gradient
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
    Sink,
    Statistics,
    stack_footprints,
)
from erf.tracing import Trace, trace

if TYPE_CHECKING:
    from erf.intervals import Precision

_Outcome = tuple[ImageRecord, dict[str, Footprint], Overview | None]

_REMEDY = "use a smaller --size, fewer --definitions or a smaller --batch-size"
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
    batch_size: int = 1,
    workers: int | None = None,
    deterministic: bool = False,
    strict: bool = False,
    until: "Precision | None" = None,
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
        batch_size: images per pass.
        workers: threads that decode ahead; None for one beside a CPU and four beside a GPU.
        deterministic: use only algorithms that give the same bits each time.
        strict: stop at the first image that cannot be used, instead of passing over it.
        until: stop as soon as a measure is known so precisely; otherwise all images are taken in.
        origin: what only the caller knows, for the record.
        sink: where the run is put, such as a `FileSink`; by default it is collected in memory.
        scratch: folder for sums that are set aside, by default the system's.
        progress: called with a stage (`images`, then `maps`), how many of them are done, and how many there are.

    Raises:
        LayerError: the layer or unit does not exist, or yields no map.
        ImageError: with `strict`, an image cannot be used; without, all of them cannot.
        InsufficientMemoryError: the run does not fit into memory.
    """
    sink = MemorySink() if sink is None else sink
    chosen = pick_device(device)
    _check(definitions, batch_size)
    origin = origin or Origin(model=type(model).__name__)
    with memory_errors(_REMEDY):
        needed = _sums_and_images(images.framing.shape, len(definitions), batch_size, projections)
        _check_memory(needed, images.framing.size, chosen)
        traced = trace(model.to(chosen), layer, images.framing.shape)
        position = resolve_unit(unit, layer, traced.feature_shape[1:])
        # Autograd keeps between half and all of the maps on the way.
        _check_memory(needed + batch_size * traced.activation_bytes // 2, images.framing.size, chosen)
        draws = Projections(model, projections, origin.seed)
        provenance = _provenance(
            origin, images, layer, position, traced, definitions, projections, chosen, deterministic
        )
        if until and provenance.shown_definition == "signed":
            raise InputError("until: definition 'signed' has negative values, which measures cannot weigh; use abs")
        run = _Run(model, draws, provenance, sink, tuple(subset_by), chosen, batch_size, strict, until, scratch)
        rounds = _rounds(images.images) if until else [images.images]
        cells = sum(len({run.subsets(image) for image in members}) for members in rounds)
        _check_scratch(cells, provenance, scratch)
        sink.begin(provenance)
        with closing(run):
            with frozen(model, _layout(chosen)), deterministic_algorithms(deterministic):
                run.visit(images, rounds, _workers(workers, chosen), progress)
            run.finish(progress)
    return sink.result()


@dataclass
class _Run:
    """The state of one run: what is fixed, and the cells that are finished."""

    model: nn.Module
    draws: Projections
    provenance: Provenance
    sink: Sink
    subset_by: tuple[str, ...]
    device: torch.device
    batch_size: int
    strict: bool
    until: "Precision | None"
    scratch: Path | None
    cells: list[tuple[tuple[str, ...], ShelvedMoments]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    taken: list[tuple[ImageRecord, Footprint]] = field(default_factory=list)
    """What tells whether images are enough; empty where nobody asks."""

    def visit(
        self, images: ImageSet, rounds: Sequence[Sequence[Image]], workers: int, progress: Progress | None
    ) -> None:
        """Take in images, round by round, until there are enough of them."""
        done = 0
        for members in rounds:
            done = self._visit(images, members, workers, progress, done)
            if self.until and self._are_enough(self.until):
                break

    def _are_enough(self, precision: "Precision") -> bool:
        if not self.taken:
            return False
        records, footprints = zip(*self.taken, strict=True)
        observed = observe_images(self.provenance, records, stack_footprints(footprints))
        return precision.is_reached(precision.estimate(observed))

    def _visit(
        self, images: ImageSet, members: Sequence[Image], workers: int, progress: Progress | None, done: int
    ) -> int:
        """Take in some images, cell by cell, so that one cell's sums are in memory at a time."""
        ordered = sorted(members, key=self.subsets)
        with closing(images.stream(ordered, workers)) as stream:
            for subsets, cell in groupby(stream, key=lambda item: self.subsets(item.image)):
                running = RunningMoments(
                    self.provenance.definitions,
                    self.provenance.input_shape[1:],
                    _sums_device(self.device),
                    len(self.draws),
                )
                for record, footprints, glance in self._records(subsets, cell, running):
                    self.sink.add_image(record, footprints, glance)
                    if self.until and footprints:
                        self.taken.append((record, footprints[self.provenance.shown_definition]))
                    done += 1
                    if progress:
                        progress("images", done, len(images))
                if running.count:
                    self.cells.append((subsets, ShelvedMoments(running, self.scratch)))
                del running
        return done

    def subsets(self, image: Image) -> tuple[str, ...]:
        """The subsets to which an image belongs."""
        values = [f"{column}={value}" for column in self.subset_by if (value := image.value(column))]
        return ("all", *filter(None, [image.laterality]), *values)

    def _records(
        self, subsets: tuple[str, ...], cell: Iterator[Sample | Failure], running: RunningMoments
    ) -> Iterator[_Outcome]:
        while batch := list(islice(cell, self.batch_size)):
            gradients = self._gradients([item for item in batch if isinstance(item, Sample)])
            for item in batch:
                if isinstance(item, Sample):
                    yield self._take_in(item, subsets, gradients.pop(0), running)
                else:
                    yield self._reject(item, subsets)
            del batch, item  # else the images stay in memory while the next are waited for

    def _gradients(self, samples: Sequence[Sample]) -> list[tuple[Tensor, ...]]:
        """Gradients (C, H, W) of each sample, one per draw of projections, on the device where the sums are kept."""
        if not samples:
            return []
        pixels = samples[0].pixels[None] if len(samples) == 1 else np.stack([sample.pixels for sample in samples])
        parameter = next(self.model.parameters(), None)
        dtype = torch.float32 if parameter is None else parameter.dtype
        inputs = torch.from_numpy(pixels).to(self.device, dtype)
        per_draw = []
        with self.draws.each() as draws:
            for _ in draws:
                gradient = unit_gradient(self.model, inputs, self.provenance.layer, self.provenance.unit)
                per_draw.append(gradient.to(_sums_device(self.device)))
        return list(zip(*per_draw, strict=True))

    def _take_in(
        self, sample: Sample, subsets: tuple[str, ...], gradients: tuple[Tensor, ...], running: RunningMoments
    ) -> _Outcome:
        edges = [float(edge) for gradient in gradients for edge in torch.aminmax(gradient)]
        if not np.isfinite(edges).all():
            reason = f"{sample.image.path}: the gradient is NaN or infinite; look at the weights and the normalisation"
            return self._reject(Failure(sample.image, reason), subsets)
        notes = sample.notes + (("the gradient is zero everywhere",) if not any(edges) else ())
        record = _record(sample.image, subsets, "ok", "; ".join(notes), sample.sha256)
        glance = Overview(*overview(sample.pixels, self.provenance.small_block))
        return record, running.add(gradients), glance

    def _reject(self, failure: Failure, subsets: tuple[str, ...]) -> _Outcome:
        if self.strict:
            raise ImageError(failure.reason)
        self.failures.append(failure)
        return _record(failure.image, subsets, "failed", failure.reason), {}, None

    def finish(self, progress: Progress | None) -> None:
        """Merge the cells into subsets and hand them over."""
        if not self.cells:
            raise ImageError(f"none of {len(self.failures)} images could be used; the first: {self.failures[0].reason}")
        subsets = dict.fromkeys(name for cell, _ in self.cells for name in cell)
        maps = list(product(subsets, self.provenance.definitions))
        for done, (subset, definition) in enumerate(maps, start=1):
            members = (shelf.moments(definition) for cell, shelf in self.cells if subset in cell)
            self.sink.add_statistics(subset, definition, _statistics(reduce(Moments.merge, members)))
            if progress:
                progress("maps", done, len(maps))

    def close(self) -> None:
        """Let go of the sums that were set aside."""
        for _, shelf in self.cells:
            shelf.close()


def _rounds(images: Sequence[Image]) -> list[list[Image]]:
    """Images in rounds that grow by half, sides in turn, so that every beginning is balanced."""
    order = interleaved(np.array([image.laterality for image in images]))
    ends = [_FIRST_ROUND]
    while ends[-1] < len(images):
        ends.append(ends[-1] + max(1, ends[-1] // 2))
    return [[images[row] for row in order[start:end]] for start, end in pairwise([0, *ends])]


def _statistics(moments: Moments) -> Statistics:
    return Statistics(
        moments.count,
        moments.mean.astype(np.float32),
        moments.variance.astype(np.float32),
        moments.mean.sum(0),
        moments.mean.sum(1),
        moments.draws,
    )


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
    )


def _provenance(
    origin: Origin,
    images: ImageSet,
    layer: str,
    unit: tuple[int, int],
    traced: Trace,
    definitions: Sequence[str],
    projections: int,
    device: torch.device,
    deterministic: bool,
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
        field_kind=traced.field.kind,
        definitions=tuple(definitions),
        normalisation=images.framing.normalisation,
        resample=images.framing.resample,
        projections=projections,
        small_block=small_block(images.framing.size),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        deterministic=deterministic,
        versions={"python": python_version()} | {name: _version(name) for name in _PACKAGES},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _check(definitions: Sequence[str], batch_size: int) -> None:
    unknown = [name for name in definitions if name not in DEFINITIONS]
    if unknown or not definitions:
        found = ", ".join(unknown) or "none"
        raise InputError(f"definitions: found {found}; expected some of {', '.join(DEFINITIONS)}")
    if batch_size < 1:
        raise InputError(f"batch size {batch_size}; expected at least 1")


def _sums_and_images(shape: tuple[int, int, int], definitions: int, batch_size: int, projections: int) -> int:
    """Bytes of two float64 sums per definition, and of an image, its gradients and the image ahead in float32."""
    pixels = shape[1] * shape[2]
    return 2 * 8 * definitions * pixels + (2 + projections) * 4 * batch_size * shape[0] * pixels


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


def _layout(device: torch.device) -> torch.memory_format | None:
    """Channels last halves the time of a pass on a CPU; MPS gains nothing."""
    return None if device.type == "mps" else torch.channels_last


def _sums_device(device: torch.device) -> torch.device:
    """Where float64 sums are kept: MPS has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def _workers(workers: int | None, device: torch.device) -> int:
    return (1 if device.type == "cpu" else 4) if workers is None else workers
