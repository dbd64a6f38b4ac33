"""Per-image profiles: the sums kept of each image's map, and its thumbnail."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from erf.results.provenance import Provenance


@dataclass(frozen=True)
class Profile:
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

    def each(self, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> "Profile":
        """Return a copy with `change` applied to every array, such as a selection of images."""
        return Profile(*(change(getattr(self, name)) for name in PROFILE_ARRAYS))


@dataclass(frozen=True)
class Overview:
    """Thumbnail and tissue map of an image; in an `ERF` the arrays of all images are stacked."""

    thumbnail: NDArray[np.uint8]
    """(h, w), means over square blocks of `Provenance.small_block` pixels, from 0 at the background to 255."""
    tissue: NDArray[np.float32]
    """(h, w), the share of each block, 0 to 1, that is tissue."""


PROFILE_ARRAYS = tuple(item.name for item in fields(Profile))


OVERVIEW = tuple(item.name for item in fields(Overview))


def kept(profile: Profile) -> list[tuple[str, NDArray[np.float32]]]:
    """List the arrays of a profile by name, without those that older files lack."""
    arrays = [(name, getattr(profile, name)) for name in PROFILE_ARRAYS]
    return [(name, array) for name, array in arrays if array.size]


def stack_profiles(profiles: Sequence[Profile]) -> Profile:
    """Stack profiles along a new first axis."""
    return Profile(*(np.stack([getattr(profile, name) for profile in profiles]) for name in PROFILE_ARRAYS))


def blank_profile(provenance: Provenance) -> Profile:
    """Return the profile of an image that failed: NaN."""
    _, height, width = provenance.input_shape
    grid = provenance.grid
    zones = (grid.rings, grid.frames, 1) if grid.finest else (0, 0, 0)
    shapes = ((width,), (height,), grid.shape, *((count,) for count in zones))
    return Profile(*(np.full(shape, np.nan, np.float32) for shape in shapes))


def blank_overview(provenance: Provenance) -> Overview:
    """Return the overview of an image that failed: black, without tissue."""
    shape = provenance.grid.even.shape
    return Overview(np.zeros(shape, np.uint8), np.zeros(shape, np.float32))
