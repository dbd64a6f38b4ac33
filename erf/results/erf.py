"""The result of a run: maps by subset and definition, image records and provenance."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from erf.errors import InputError
from erf.results.profiles import OVERVIEW, Overview, Profile
from erf.results.provenance import Provenance
from erf.text import as_names

if TYPE_CHECKING:
    from erf.comparison.estimate import Estimate

Curve = NDArray[np.floating]
Map = NDArray[np.float32]


@dataclass(frozen=True)
class Spread:
    """Spread of the ERFs of single draws of random projections."""

    centroid: tuple[float, float]
    """Standard deviation of the centroid, (y, x) in pixels."""
    total_variation: float
    """Total variation distance, 0 to 1, of a draw from the mean of the draws, averaged over draws, at the resolution
    of `Profile.small`."""


@dataclass(frozen=True, repr=False)
class Statistics:
    """The ERF of one subset under one definition.

    Example:
        >>> import torch, erf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 3, padding=1))
        >>> images = erf.load_images("phantom", n=4, size=(64, 48))
        >>> result = erf.compute(model, images, layer="1", device="cpu")
        >>> y, x = result.statistics("all", "abs").centroid
        >>> abs(y - 32) < 2 and abs(x - 24) < 2
        True
    """

    count: int
    mean: Map
    """(H, W), mean over images of the definition's map."""
    variance: Map
    """(H, W), unbiased variance between images; NaN for a single image."""
    across_rows: Curve
    """(W,), sum of the mean over rows: a curve along x."""
    across_columns: Curve
    """(H,), sum of the mean over columns: a curve along y."""
    draws: Profile | None = None
    """Mean profile over images of each draw of random projections, stacked; None for a single draw."""

    def __repr__(self) -> str:
        size, (y, x) = f"{len(self.across_columns)}x{len(self.across_rows)}", self.centroid  # without reading the maps
        return f"Statistics over {self.count} images: map of {size} px, centroid y {y:.1f}, x {x:.1f}"

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

    def curve(self, axis: str) -> Curve:
        """Return the sum of the mean along an axis: 'x' for the sum over rows (W,), 'y' for that over columns (H,)."""
        if axis not in ("x", "y"):
            raise InputError(f"axis '{axis}' not known; expected x or y")
        return self.across_rows if axis == "x" else self.across_columns

    @property
    def centroid(self) -> tuple[float, float]:
        """Centre of mass (y, x) of the mean in pixels; NaN where its sum is not positive.

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


@dataclass(frozen=True, repr=False)
class ERF:
    """Effective receptive field of one unit of one model over a set of images."""

    provenance: Provenance
    subsets: Mapping[str, Mapping[str, Statistics]]
    """Statistics by subset, then by definition."""
    images: tuple[ImageRecord, ...]
    profiles: Mapping[str, Profile]
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
        overview, profiles = self.overview(), dict(self.profiles)
        for index, record in enumerate(self.images):
            kept = profiles.items() if record.status == "ok" else ()
            yield Row(
                record,
                {definition: stacked.each(itemgetter(index)) for definition, stacked in kept},
                Overview(*(getattr(overview, name)[index] for name in OVERVIEW)) if overview else None,
            )

    @property
    def definition(self) -> str:
        """The definition that is shown by default: abs, if it was computed, else the first."""
        return self.provenance.shown_definition

    def __getitem__(self, key: str | tuple[str, str]) -> Statistics:
        """Return the maps of a subset, or of (subset, definition)."""
        subset, definition = (key, self.definition) if isinstance(key, str) else key
        return self.statistics(subset, definition)

    def measure(self, name: str, **options: Any) -> "Estimate":
        """Measure with its interval, such as `result.measure("r50")`; see `erf.measure`."""
        import erf

        return erf.measure(self, name, **options)

    def plot(self, path: str | Path | None = None, **options: Any) -> Any:
        """Draw the maps and curves; see `erf.plot`. Without a path, return the figure."""
        import erf

        return erf.plot(self, path, **options)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the ERF to an HDF5 file; see `erf.save`."""
        import erf

        erf.save(self, path, overwrite=overwrite)

    def to_xarray(self) -> Any:
        """Return maps and curves with coordinates as an `xarray.DataTree`; see `erf.to_xarray`."""
        import erf

        return erf.to_xarray(self)

    def to_pandas(self) -> Any:
        """Return the records of the images as a `pandas.DataFrame`; see `erf.to_pandas`."""
        import erf

        return erf.to_pandas(self)

    def __repr__(self) -> str:
        import erf

        return str(erf.summarise(self))

    def _repr_html_(self) -> str:
        import erf

        return erf.summarise(self).to_html()

    def count(self, subset: str = "all") -> int:
        """Return the number of images in a subset, without those that failed."""
        return sum(image.status == "ok" and subset in image.subsets for image in self.images)

    @property
    def is_mean_only(self) -> bool:
        """Whether this is a single imported map, whose images are not known."""
        return bool(self.provenance.imported) and len(self.images) == 1

    @property
    def remarks(self) -> tuple[str, ...]:
        """Remarks on images that were used, each once, with the number of images and the first of them."""
        paths: dict[str, list[str]] = {}
        for image in self.images:
            if image.status == "ok" and image.message:
                paths.setdefault(image.message, []).append(image.path)
        total = len(self.images)
        return tuple(
            f"{found[0]}: {words}" if len(found) == 1 else f"{len(found)} of {total} images, first {found[0]}: {words}"
            for words, found in paths.items()
        )

    @property
    def failures(self) -> tuple[ImageRecord, ...]:
        """Images that could not be used."""
        return tuple(image for image in self.images if image.status != "ok")


@dataclass(frozen=True)
class Row:
    """Data of one image: record, profiles and overview; a failed image has neither profiles nor overview."""

    record: ImageRecord
    profiles: Mapping[str, Profile]
    """Per-image profiles by definition."""
    overview: Overview | None


def labels_of(erfs: Sequence[ERF], labels: str | Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the given labels of ERFs, or their titles; `InputError` unless there is one for each."""
    names = as_names(labels) or _distinct([erf.provenance for erf in erfs])
    if len(names) != len(erfs):
        raise InputError(f"found {len(names)} labels for {len(erfs)} ERFs; expected one for each")
    return names


def shared_definition(erfs: Sequence[ERF]) -> str:
    """Return the definition that the first ERF shows by default, or the first one that all ERFs have."""
    first, *others = erfs
    names = [first.definition, *first.provenance.definitions]
    return next((name for name in names if all(name in erf.provenance.definitions for erf in others)), names[0])


def _distinct(origins: Sequence[Provenance]) -> tuple[str, ...]:
    """Return titles, with the weights where titles are equal, and numbers where these are equal as well."""
    titles = [origin.title for origin in origins]
    names = [
        f"{title} ({origin.weights_text})" if titles.count(title) > 1 else title
        for title, origin in zip(titles, origins, strict=True)
    ]
    if len(set(names)) < len(names) and len(set(titles)) < len(titles):
        names = [
            f"{title} {titles[: place + 1].count(title)}" if titles.count(title) > 1 else title
            for place, title in enumerate(titles)
        ]
    return tuple(names)
