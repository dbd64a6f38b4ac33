"""The result of a run: maps by subset and definition, image records and provenance. No files, no PyTorch."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from erf.definitions import DEFAULT_DEFINITION
from erf.errors import InputError
from erf.grid import Grid

SHIPPED = "shipped/"
"""Prefix of `Origin.weights` for weights that are part of the package."""

Curve = NDArray[np.floating]
Map = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Facts about a run that only the caller knows."""

    model: str = ""
    model_options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the model that differ from its defaults."""
    weights: str = ""
    """Path of the weights file, or `SHIPPED` followed by a name; '' for untrained weights drawn from the seed."""
    weights_sha256: str = ""
    seed: int = 0
    """Seed of untrained weights, random projections and random numbers in the network."""
    image_seed: int = 0
    """Seed of the random selection of images, and of phantoms."""
    source: str = ""
    """Source of the images, such as a folder or manifest."""
    command: str = ""
    identity: str = ""
    """SHA-256 of the settings and the list of images of the whole run; '' if the caller does not give it."""


@dataclass(frozen=True, kw_only=True)
class Provenance(Origin):
    """Complete description of a measurement: enough to repeat it, and to interpret the maps without the model."""

    layer: str
    unit: tuple[int, ...]
    """(y, x) in the layer's map; for aligned maps, the unit to which they are shifted."""
    units: str = ""
    """Rule by which units were chosen, such as 'max' or 'grid:3x3'; '' for the centre or a given position."""
    aligned: bool = False
    """Whether maps were shifted so that their units coincide."""
    channel: str = "all"
    """Channels of the unit that are differentiated: 'all', a number, or 'signs' for random signs on all."""
    method: str = "gradient"
    """Attribution method, one of `METHODS`."""
    method_options: Mapping[str, Any] = field(default_factory=dict)
    layout: str = ""
    """Layout by which the layer's output is read as a map, in words."""
    inputs: tuple[str, ...] = ()
    """Names of the network's inputs if there are several; the subset `input=NAME` has the ERF of each."""
    slices: int = 0
    """Number of slices of a volume, over which maps are summed; 0 for images."""
    eval_mode: str = ""
    """Modules that behave differently in training: those switched off, and those with running statistics."""
    random: bool = False
    """Whether the network or the method draws random numbers, which are seeded per image."""
    unit_center: tuple[float, float]
    """(y, x) of the unit projected to the input, in pixels."""
    input_shape: tuple[int, int, int]
    """(C, H, W) of an image."""
    feature_shape: tuple[int, ...]
    """(C, H, W) of the layer's map."""
    field_size: tuple[float, float]
    """(height, width) of the unit's theoretical receptive field in pixels; infinite where an operator is global."""
    field_shift: tuple[float, float] = (0.0, 0.0)
    """(y, x) in pixels from the unit's centre to the middle of that field; not 0 where neighbours share up-sampled
    units."""
    field_stride: tuple[float, float]
    depth: int = 0
    """Number of operators the forward pass runs before the layer returns."""
    window: tuple[int, ...] = ()
    """(top, bottom, left, right), half open, in pixels, of the part of the image given to the network; empty, in older
    files, for the whole image. The gradient is zero outside it, which lies outside the theoretical receptive field."""
    self_check: Mapping[str, str] = field(default_factory=dict)
    """Result of the self-check: the ways of computing compared, their difference, and the way used."""
    field_kind: str = "finite"
    """'finite', 'infinite', or 'data-dependent' where moving kernel taps leave no bound."""
    definitions: tuple[str, ...]
    normalisation: str
    resample: bool = False
    mirrored: bool = False
    """Whether every image was flipped left to right inside its frame; `laterality` is that before the flip."""
    projections: int = 1
    """Number of draws of the model's random projections; each image's map is the mean over them. The first draw is the
    model's own."""
    precision: str = "float32"
    """Precision of convolutions and matrix products: 'float32' means that of the weights."""
    precision_error: float = 0.0
    """Error of the gradient on noise: sum of absolute differences to full precision, relative to its sum."""
    shard: tuple[int, int] = (1, 1)
    """(i, n), counted from 1: part i of n of a run's images; its means and variances are in double precision."""
    small_block: int = 1
    """Longest side of the blocks over which the downsampled per-image maps are summed, in pixels."""
    finest_block: int = 0
    """Side in pixels of the blocks at the unit, from which they grow; 0, in older files, where all are equal."""
    device: str = ""
    deterministic: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)
    created: str = ""
    """ISO 8601, UTC."""

    @property
    def weights_words(self) -> str:
        """Whether the network was trained, for captions."""
        if self.weights.startswith(SHIPPED):
            return "shipped weights, trained on phantoms"
        return f"weights {Path(self.weights).name}" if self.weights else f"untrained, seed {self.seed}"

    @property
    def title(self) -> str:
        """The model and the options with which it was built."""
        return ", ".join([self.model, *(f"{name} {value}" for name, value in self.model_options.items())])

    @property
    def target(self) -> str:
        """The measured unit in words, with the method if it is not the plain gradient of all channels."""
        if self.aligned:
            units = f"units {self.units or 'of several positions'}, aligned on one"
        else:
            units = f"unit {','.join(map(str, self.unit))}"
        words = [f"layer {self.layer}", units]
        if self.channel != "all":
            words.append("random signs on all channels" if self.channel == "signs" else f"channel {self.channel}")
        if self.method != "gradient":
            given = "".join(f" {name}={value}" for name, value in self.method_options.items())
            words.append(f"by {self.method}{given} instead of the gradient")
        if self.precision != "float32":
            words.append(f"in {self.precision}, which changes the gradient on noise by {self.precision_error:.2g}")
        if self.slices:
            words.append(f"summed over {self.slices} slices")
        return ", ".join(words)

    def described(self) -> list[tuple[str, str]]:
        """List every attribute with its value in words."""
        return [(item.name.replace("_", " "), _words(item.name, getattr(self, item.name))) for item in fields(self)]

    @property
    def shown_definition(self) -> str:
        """The definition that tables and pictures show by default."""
        return DEFAULT_DEFINITION if DEFAULT_DEFINITION in self.definitions else self.definitions[0]

    @property
    def grid(self) -> Grid:
        """Grid of blocks and zones of the per-image sums."""
        _, height, width = self.input_shape
        return Grid((height, width), self.small_block, self.unit_center, self.finest_block, self.field_box())

    def field_box(self) -> tuple[float, float, float, float] | None:
        """Return the edges (top, bottom, left, right) of the theoretical field in pixels; None if it is infinite."""
        if not np.isfinite(self.field_size).all():
            return None
        (y, x), (height, width) = np.add(self.unit_center, self.field_shift).tolist(), self.field_size
        return y - height / 2, y + height / 2, x - width / 2, x + width / 2


_INPUT = "input="


def input_subset(name: str) -> str:
    """Return the name of the subset of images given to one of a network's inputs."""
    return f"{_INPUT}{name}"


def without_input(subsets: Sequence[str]) -> tuple[str, ...]:
    """Return the subsets of a case, given those of one of its images: without the input's own."""
    return tuple(name for name in subsets if not name.startswith(_INPUT))


def tap_names(origins: Sequence[Provenance]) -> list[str]:
    """Return short, distinct names of several results: layers, and units where a layer has several."""
    layers, units = [origin.layer for origin in origins], [",".join(map(str, origin.unit)) for origin in origins]
    if len(set(layers)) == len(layers):
        return layers
    if len(set(layers)) == 1:
        return [f"unit {unit}" for unit in units]
    return [f"{layer} {unit}" for layer, unit in zip(layers, units, strict=True)]


def unlike(one: Provenance, other: Provenance, names: Iterable[str]) -> list[str]:
    """Return those of the named attributes that differ, with both values in words."""
    here, there = (dict(each.described()) for each in (one, other))
    words = [name.replace("_", " ") for name in names]
    return [f"{name} {here[name]} and {there[name]}" for name in words if here[name] != there[name]]


def _words(name: str, value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items()) or "–"
    if isinstance(value, tuple):
        separator = " × " if "shape" in name or "size" in name else ", "
        return separator.join(_words(name, item) for item in value)
    if isinstance(value, float):
        return "infinite" if math.isinf(value) else f"{value:g}"
    return str(value) if value != "" else "–"


@dataclass(frozen=True)
class Footprint:
    """Per-image profile: sums of one map, from which measures can be computed later without the model.

    In an `ERF` the arrays of all images are stacked along a first axis, in the order of `ERF.images`; images that
    failed have NaN. For several draws of random projections, the means over images of each draw are stacked likewise.
    """

    across_rows: NDArray[np.float32]
    """(W,), sums over rows."""
    across_columns: NDArray[np.float32]
    """(H,), sums over columns."""
    small: NDArray[np.float32]
    """(h, w), the downsampled map: sums over the blocks of `Provenance.grid`."""
    rings: NDArray[np.float32]
    """(R,), sums over rings around the unit's centre; empty in older files."""
    frames: NDArray[np.float32]
    """(R,), sums over square frames around the unit's centre; empty in older files."""
    cross_moment: NDArray[np.float32]
    """(1,), sum of value · y · x, with y and x in pixels from the unit's centre; empty in older files."""

    def each(self, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> "Footprint":
        """Return a copy with `change` applied to every array, such as a selection of images."""
        return Footprint(*(change(getattr(self, name)) for name in FOOTPRINT))


@dataclass(frozen=True)
class Overview:
    """Thumbnail and tissue map of an image; in an `ERF` the arrays of all images are stacked."""

    thumbnail: NDArray[np.uint8]
    """(h, w), means over square blocks of `Provenance.small_block` pixels, from 0 at the background to 255."""
    tissue: NDArray[np.float32]
    """(h, w), the share of each block, 0 to 1, that is tissue."""


FOOTPRINT = tuple(item.name for item in fields(Footprint))


PROVENANCE = tuple(item.name for item in fields(Provenance))


OVERVIEW = tuple(item.name for item in fields(Overview))


def kept(footprint: Footprint) -> list[tuple[str, NDArray[np.float32]]]:
    """List the arrays of a profile by name, without those that older files lack."""
    arrays = [(name, getattr(footprint, name)) for name in FOOTPRINT]
    return [(name, array) for name, array in arrays if array.size]


def stack_footprints(footprints: Sequence[Footprint]) -> Footprint:
    """Stack profiles along a new first axis."""
    return Footprint(*(np.stack([getattr(footprint, name) for footprint in footprints]) for name in FOOTPRINT))


@dataclass(frozen=True)
class Spread:
    """Spread of the ERFs of single draws of random projections."""

    centroid: tuple[float, float]
    """Standard deviation of the centroid, (y, x) in pixels."""
    total_variation: float
    """Total variation distance, 0 to 1, of a draw from the mean of the draws, averaged over draws, at the resolution
    of `Footprint.small`."""


@dataclass(frozen=True)
class Statistics:
    """The ERF of one subset under one definition."""

    count: int
    mean: Map
    """(H, W), mean over images of the definition's map."""
    variance: Map
    """(H, W), unbiased variance between images; NaN for a single image."""
    across_rows: Curve
    """(W,), sum of the mean over rows: a curve along x."""
    across_columns: Curve
    """(H,), sum of the mean over columns: a curve along y."""
    draws: Footprint | None = None
    """Mean profile over images of each draw of random projections, stacked; None for a single draw."""

    def spread(self) -> Spread | None:
        """Return the spread of single draws; None for a single draw. Valid for definitions without negative values."""
        if self.draws is None:
            return None
        centroids = [
            [_center_of_mass(curve) for curve in curves]
            for curves in (self.draws.across_columns, self.draws.across_rows)
        ]
        sums = self.draws.small.astype(np.float64).reshape(len(self.draws.small), -1)
        shares = sums / sums.sum(1, keepdims=True)
        y, x = (float(np.std(values, ddof=1)) for values in centroids)
        return Spread((y, x), float(np.abs(shares - shares.mean(0)).sum(1).mean() / 2))

    def centroid(self) -> tuple[float, float]:
        """Return the centre of mass (y, x) of the mean in pixels; NaN where its sum is not positive.

        Meaningful for definitions without negative values.
        """
        return _center_of_mass(self.across_columns), _center_of_mass(self.across_rows)


def _center_of_mass(curve: Curve) -> float:
    weights = curve.astype(np.float64)
    total = weights.sum()
    return float(weights @ np.arange(len(weights)) / total) if total > 0 else float("nan")


@dataclass(frozen=True)
class ImageRecord:
    """Record of one image of a run."""

    id: str
    path: str
    laterality: str
    view: str
    patient_id: str
    status: str
    """'ok' or 'failed'."""
    message: str = ""
    sha256: str = ""
    pixel_spacing: float = float("nan")
    """Millimetres per pixel; NaN if unknown."""
    columns: Mapping[str, str] = field(default_factory=dict)
    subsets: tuple[str, ...] = ()
    number: int = 0
    """Position in the list of images before shards are taken."""


@dataclass(frozen=True)
class ERF:
    """Effective receptive field of one unit of one model over a set of images."""

    provenance: Provenance
    subsets: Mapping[str, Mapping[str, Statistics]]
    """Statistics by subset, then by definition."""
    images: tuple[ImageRecord, ...]
    footprints: Mapping[str, Footprint]
    """Per-image profiles by definition; arrays of all images, stacked."""
    read_overview: Callable[[], Overview | None] = lambda: None
    """Function that reads the overview when it is needed."""

    def statistics(self, subset: str = "all", definition: str = "abs") -> Statistics:
        """Return the maps of one subset and definition; raises `InputError`, with those available, if unknown."""
        self.check(subset, definition)
        return self.subsets[subset][definition]

    def check(self, subset: str, definition: str) -> None:
        """Raise `InputError`, with those available, if the subset or definition does not exist."""
        if subset not in self.subsets:
            raise InputError(f"no subset '{subset}' in this ERF; it has {', '.join(self.subsets)}")
        if definition not in self.subsets[subset]:
            known = ", ".join(self.subsets[subset])
            raise InputError(f"no definition '{definition}' in this ERF; it has {known}")

    def overview(self) -> Overview | None:
        """Return thumbnails and tissue of all images, stacked in the order of `images`; None if the file has none."""
        return self.read_overview()

    def rows(self) -> Iterator["Row"]:
        """Yield record, profiles and overview of each image, in the order of `images`."""
        overview, footprints = self.overview(), dict(self.footprints)
        for index, record in enumerate(self.images):
            kept = footprints.items() if record.status == "ok" else ()
            yield Row(
                record,
                {definition: stacked.each(itemgetter(index)) for definition, stacked in kept},
                Overview(*(getattr(overview, name)[index] for name in OVERVIEW)) if overview else None,
            )

    def count(self, subset: str = "all") -> int:
        """Return the number of images in a subset, without those that failed."""
        return sum(image.status == "ok" and subset in image.subsets for image in self.images)

    @property
    def failures(self) -> tuple[ImageRecord, ...]:
        """Images that could not be used."""
        return tuple(image for image in self.images if image.status != "ok")


@dataclass(frozen=True)
class Row:
    """Data of one image: record, profiles and overview; a failed image has neither profiles nor overview."""

    record: ImageRecord
    footprints: Mapping[str, Footprint]
    """Per-image profiles by definition."""
    overview: Overview | None


class Sink(Protocol):
    """Destination of a run's results; its methods are called in this order."""

    def begin(self, provenance: Provenance) -> None:
        """Start the results; called once, before any image."""

    def add_image(
        self, record: ImageRecord, footprints: Mapping[str, Footprint], overview: Overview | None = None
    ) -> None:
        """Add one image; called once per image, with profiles by definition, or none and no overview if it failed."""

    def add_statistics(self, subset: str, definition: str, statistics: Statistics) -> None:
        """Add the maps of one subset and definition; called after all images."""

    def result(self) -> ERF:
        """Complete the results and return them; called last."""


class MemorySink:
    """Sink that collects the results in memory."""

    def begin(self, provenance: Provenance) -> None:
        self._provenance = provenance
        self._images: list[ImageRecord] = []
        self._footprints: list[Mapping[str, Footprint]] = []
        self._overviews: list[Overview] = []
        self._subsets: dict[str, dict[str, Statistics]] = {}

    def add_image(
        self, record: ImageRecord, footprints: Mapping[str, Footprint], overview: Overview | None = None
    ) -> None:
        self._images.append(record)
        self._footprints.append(footprints)
        self._overviews.append(overview or blank_overview(self._provenance))

    def add_statistics(self, subset: str, definition: str, statistics: Statistics) -> None:
        self._subsets.setdefault(subset, {})[definition] = statistics

    def result(self) -> ERF:
        footprints = {name: self._stack(name) for name in self._provenance.definitions}
        arrays = (np.stack([getattr(each, name) for each in self._overviews]) for name in OVERVIEW)
        overview = Overview(*arrays)
        return ERF(self._provenance, self._subsets, tuple(self._images), footprints, lambda: overview)

    def _stack(self, definition: str) -> Footprint:
        blank = blank_footprint(self._provenance)
        return stack_footprints([footprints.get(definition, blank) for footprints in self._footprints])


def blank_footprint(provenance: Provenance) -> Footprint:
    """Return the profile of an image that failed: NaN."""
    _, height, width = provenance.input_shape
    grid = provenance.grid
    zones = (grid.rings, grid.frames, 1) if grid.finest else (0, 0, 0)
    shapes = ((width,), (height,), grid.shape, *((count,) for count in zones))
    return Footprint(*(np.full(shape, np.nan, np.float32) for shape in shapes))


def blank_overview(provenance: Provenance) -> Overview:
    """Return the overview of an image that failed: black, without tissue."""
    shape = provenance.grid.even.shape
    return Overview(np.zeros(shape, np.uint8), np.zeros(shape, np.float32))
