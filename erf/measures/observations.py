"""Per-image profiles of one ERF, and weighted samples of them: the input of every measure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from erf.box import Box
from erf.definitions import DEFAULT_DEFINITION
from erf.errors import InputError
from erf.measures.dynamics import mean_over_pairs, pairwise_total_variation
from erf.measures.grid import zones_of_blocks
from erf.measures.size import mass_radius, shortest_half, width_stretch
from erf.results import ERF, ImageRecord, Profile, Provenance
from erf.results.grid import Array, Grid, outer_edges

BLOCKS_OF_A_FIELD = 3
"""Number of blocks that must fit into the shortest interval with half of the mass for a field to be resolved."""


@dataclass(frozen=True)
class Observations:
    """Maps, curves and tissue of N images, with their coordinates."""

    grid: Grid
    small: Array
    """(N, h, w), sums over blocks."""
    across_rows: Array
    """(N, W)."""
    across_columns: Array
    """(N, H)."""
    sides: NDArray[np.str_]
    """(N,), 'left', 'right' or ''."""
    groups: NDArray[np.str_]
    """(N,), resampling unit of each image: the patient, or the image itself."""
    keys: NDArray[np.str_]
    """(N,), hash of each image's content (or its id), by which images of two files are matched."""
    tissue: Array | None = None
    """(N, h, w), share of each square block that is tissue."""
    rings: Array | None = None
    """(N, R), sums over rings around the unit's centre; None in older files."""
    frames: Array | None = None
    """(N, R), sums over square frames around it."""
    cross_moments: Array | None = None
    """(N,), sums of mass times its vertical and its horizontal distance from the unit's centre."""
    field_box: Box[float] | None = None
    field_size: tuple[float, float] = (np.inf, np.inf)
    spacing: float = float("nan")
    """Millimetres per pixel if equal for all images, else NaN."""

    def __len__(self) -> int:
        return len(self.small)

    def pick(self, rows: NDArray[np.intp]) -> "Observations":
        """Select images by row, in the given order."""
        found = {item.name: getattr(self, item.name) for item in fields(self)}
        picked: dict[str, Any] = {name: it[rows] for name, it in found.items() if isinstance(it, np.ndarray)}
        return replace(self, **picked)

    @cached_property
    def grouping(self) -> NDArray[np.intp]:
        """(N,), the number of the group of each image."""
        return np.unique(self.groups, return_inverse=True)[1]

    @cached_property
    def strata(self) -> list[NDArray[np.intp]]:
        """Indices of groups with the same lateralities; a single stratum if one would have one member only."""
        count = int(self.grouping.max()) + 1
        kinds = [tuple(sorted(set(self.sides[self.grouping == number]))) for number in range(count)]
        strata = [np.flatnonzero([other == kind for other in kinds]) for kind in sorted(set(kinds))]
        return strata if min(map(len, strata)) > 1 else [np.arange(count)]

    @cached_property
    def masses_on_tissue(self) -> Array:
        """(N,), mass of each image that is on tissue; NaN where tissue is not known."""
        return self._on_tissue(self.grid.evened(self.small))

    @cached_property
    def areas_of_tissue(self) -> Array:
        """(N,), pixels of each image that are tissue; NaN where tissue is not known."""
        return self._on_tissue(self.grid.even.areas)

    def _on_tissue(self, values: Array) -> Array:
        return np.full(len(self), np.nan) if self.tissue is None else (values * self.tissue).sum((1, 2))

    @cached_property
    def ring_edges(self) -> Array:
        """(R,), outer radii of the rings."""
        return zones_of_blocks(self.grid, np.hypot)[0] if self.rings is None else outer_edges(self.rings.shape[1])

    @cached_property
    def ring_areas(self) -> Array:
        """(R,), pixels of the image in each ring."""
        if self.rings is None:
            return np.asarray(self.grid.areas.ravel() @ zones_of_blocks(self.grid, np.hypot)[1])
        return self.grid.ring_areas

    @cached_property
    def ring_masses(self) -> Array:
        """(N, R), mass of each image in rings around the unit's centre."""
        return self._of_blocks(np.hypot) if self.rings is None else self.rings

    @cached_property
    def frame_edges(self) -> Array:
        """(R,), half sides of the square frames."""
        return zones_of_blocks(self.grid, np.maximum)[0] if self.frames is None else outer_edges(self.frames.shape[1])

    @cached_property
    def frame_masses(self) -> Array:
        """(N, R), mass of each image in square frames around the unit's centre."""
        return self._of_blocks(np.maximum) if self.frames is None else self.frames

    @cached_property
    def products(self) -> Array:
        """(N,), cross moments, of older files from blocks."""
        if self.cross_moments is not None:
            return self.cross_moments
        y, x = (middles - center for middles, center in zip(self.grid.middles, self.grid.center, strict=True))
        return np.asarray(self.small @ x @ y)

    def _of_blocks(self, distance: np.ufunc) -> Array:
        return np.asarray(self.small.reshape(len(self), -1) @ zones_of_blocks(self.grid, distance)[1])

    @cached_property
    def stretches(self) -> tuple[int, int]:
        """Bin widths in pixels for smoothing the curves along y and along x before measuring their width."""
        along_y, along_x = (width_stretch(curve.mean(0)) for curve in (self.across_columns, self.across_rows))
        return along_y, along_x

    @cached_property
    def tops(self) -> tuple[int, int]:
        """Pixels of the maxima of the curves along y and along x."""
        along_y, along_x = (int(curve.mean(0).argmax()) for curve in (self.across_columns, self.across_rows))
        return along_y, along_x

    @cached_property
    def radius_of_center(self) -> float:
        """Radius in pixels of the unit's centre region, a sixteenth of the radius that holds half of the mass."""
        return float(mass_radius(self.ring_masses.mean(0), self.ring_edges, 0.5)) / 16 if self.grid.finest else 0.0

    @cached_property
    def extent(self) -> float:
        """Length in pixels of the shortest interval, on either axis, that holds half of the mass."""
        return min(shortest_half(curve.mean(0)) for curve in (self.across_columns, self.across_rows))

    @cached_property
    def block(self) -> float:
        """Mass-weighted geometric mean of the block sides, in pixels."""
        share = self.small.mean(0) / max(float(self.small.mean(0).sum()), np.finfo(float).tiny)
        return float(np.exp((share * np.log(self.grid.areas)).sum() / 2))

    def resolves(self, part: str) -> bool:
        """Whether the stored resolution suffices for measures of a part: 'curves', 'sums', 'blocks' or 'tissue'."""
        if part == "curves" or (part == "sums" and self.rings is not None):
            return True
        block = self.grid.block if part == "tissue" else self.block
        return block < 1.5 or self.extent >= BLOCKS_OF_A_FIELD * block

    @cached_property
    def distances(self) -> Array:
        """(N, N), total variation between the maps of two images."""
        return pairwise_total_variation(self.small)

    def all(self) -> "Sample":
        """Sample with every image once."""
        return Sample(self, np.ones(len(self)))


def observe(erf: ERF, subset: str = "all", definition: str = DEFAULT_DEFINITION) -> Observations:
    """Collect the per-image profiles of a subset, without failed images.

    Args:
        erf: The ERF.
        subset: Name of the subset.
        definition: Definition of the map, not `signed`, whose maps have negative values.

    Returns:
        Profiles of the N usable images.

    Raises:
        InputError: Subset or definition does not exist, or the definition is `signed`.
    """
    return observe_subsets(erf, [subset], definition)[subset]


def observe_subsets(erf: ERF, subsets: Sequence[str], definition: str) -> dict[str, Observations]:
    """Collect the per-image profiles of several subsets, which are read once; see `observe`."""
    if definition == "signed":
        raise InputError(
            "definition 'signed' has negative values, which measures cannot weigh; use abs, relu or square"
        )
    for subset in subsets:
        erf.check(subset, definition)
    overview, profile = erf.overview(), erf.profiles[definition]
    found = {}
    for subset in subsets:
        rows = [index for index, image in enumerate(erf.images) if image.status == "ok" and subset in image.subsets]
        tissue = None if overview is None else overview.tissue[rows].astype(np.float64)
        images = [erf.images[row] for row in rows]
        found[subset] = observe_images(erf.provenance, images, profile.each(itemgetter(rows)), tissue)
    return found


def observe_images(
    origin: Provenance, images: Sequence[ImageRecord], profile: Profile, tissue: Array | None = None
) -> Observations:
    """Collect observations from their parts.

    Args:
        origin: Provenance of the run.
        images: Records of the N usable images.
        profile: Their stacked per-image profiles.
        tissue: Fraction of tissue (N, h, w) in each square block; None if unknown.

    Returns:
        Profiles of the N images, grouped by patient if every image names one.
    """
    by_patient = all(image.patient_id for image in images)
    spacings = {image.pixel_spacing for image in images}
    return Observations(
        grid=origin.grid,
        small=profile.small.astype(np.float64),
        across_rows=profile.across_rows.astype(np.float64),
        across_columns=profile.across_columns.astype(np.float64),
        sides=np.array([image.laterality for image in images]),
        groups=np.array([image.patient_id if by_patient else f"{number}" for number, image in enumerate(images)]),
        keys=np.array([image.sha256 or image.id for image in images]),
        tissue=tissue,
        rings=profile.rings.astype(np.float64) if origin.finest_block else None,
        frames=profile.frames.astype(np.float64) if origin.finest_block else None,
        cross_moments=profile.cross_moment[:, 0].astype(np.float64) if origin.finest_block else None,
        field_box=origin.field_box(),
        field_size=origin.field_size,
        spacing=spacings.pop() if len(spacings) == 1 and not origin.is_scaled else float("nan"),
    )


@dataclass(frozen=True)
class Sample:
    """Images with their resampling counts (..., N); leading axes are a batch of samples."""

    observed: Observations
    counts: Array
    permuted: Mapping[str, Array] | None = None
    """Counts by side, if sides were permuted."""

    @property
    def grid(self) -> Grid:
        return self.observed.grid

    def _mean(self, values: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            weights = self.counts / self.counts.sum(-1, keepdims=True)
        flat = weights @ values.reshape(len(values), -1)
        return np.reshape(flat, (*self.counts.shape[:-1], *values.shape[1:]))

    @cached_property
    def small(self) -> Array:
        """(..., h, w), mean over images."""
        return self._mean(self.observed.small)

    @cached_property
    def across_rows(self) -> Array:
        """(..., W), mean over images."""
        return self._mean(self.observed.across_rows)

    @cached_property
    def across_columns(self) -> Array:
        """(..., H), mean over images."""
        return self._mean(self.observed.across_columns)

    @property
    def curves(self) -> tuple[Array, Array]:
        """Along y and along x."""
        return self.across_columns, self.across_rows

    @cached_property
    def ring_masses(self) -> Array:
        """(..., R), mean over images."""
        return self._mean(self.observed.ring_masses)

    @cached_property
    def products(self) -> Array:
        """(...,), mean over images of the cross moments."""
        return self._mean(self.observed.products)

    @cached_property
    def frame_masses(self) -> Array:
        """(..., R), mean over images."""
        return self._mean(self.observed.frame_masses)

    @cached_property
    def left(self) -> "Sample":
        """The same sample restricted to left breasts."""
        return self._side("left")

    @cached_property
    def right(self) -> "Sample":
        """The same sample restricted to right breasts."""
        return self._side("right")

    def _side(self, side: str) -> "Sample":
        counts = self.counts * (self.observed.sides == side) if self.permuted is None else self.permuted[side]
        return Sample(self.observed, counts)

    @cached_property
    def on_tissue(self) -> Array:
        """(...,), share of the mass on tissue."""
        return self._share(self.observed.masses_on_tissue, self.observed.small.sum((1, 2)))

    @cached_property
    def tissue_area(self) -> Array:
        """(...,), share of the pixels that are tissue."""
        return self._share(self.observed.areas_of_tissue, np.full(len(self.observed), self.grid.areas.sum()))

    def _share(self, part: Array, whole: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((self.counts @ part) / (self.counts @ whole))

    @cached_property
    def variability(self) -> Array:
        """(...,), mean total variation between the maps of two different images."""
        return mean_over_pairs(self.observed.distances, self.counts)


def interleaved(sides: NDArray[np.str_]) -> NDArray[np.intp]:
    """Row indices that alternate between sides, so that any initial part is balanced."""
    ranks = np.zeros(len(sides), np.intp)
    for side in set(sides):
        members = sides == side
        ranks[members] = np.arange(members.sum())
    return np.argsort(ranks, kind="stable")
