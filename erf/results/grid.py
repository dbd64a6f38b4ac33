"""Grid of the sums that are kept of each map: blocks of pixels, and zones around the unit's centre.

Pixel i reaches from i - 1/2 to i + 1/2. Blocks are as small as pixels at the unit and grow with the distance from it,
so that a small field is resolved as well as a large one; zones are rings and square frames of half a pixel.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from erf.box import Box

Array = NDArray[np.float64]

ZONE = 0.5
"""Width of rings and frames in pixels: the resolution of radii, independent of the field."""

_NEAR = 8
"""Largest ratio of a block's distance from the unit to its side."""
_ROWS = 256
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Grid:
    """The pixels of an input (height, width), rectangular blocks of them, and the unit's centre (y, x)."""

    size: tuple[int, int]
    block: int
    """Longest side of a block."""
    center: tuple[float, float]
    finest: int = 0
    """Side of the blocks at the unit; 0 where all blocks are squares of `block`, as in older files."""
    box: Box[float] | None = None
    """The theoretical field, at whose edges blocks end."""

    @cached_property
    def bounds(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """First pixels of the blocks along y and along x, and the number of pixels."""
        axes = (self.box or Box(0.0, 0.0, 0.0, 0.0)).axes
        along_y, along_x = (np.array(sorted(self._bounds(axis, ends)), np.intp) for axis, ends in enumerate(axes))
        return along_y, along_x

    def _bounds(self, axis: int, field: tuple[float, float]) -> set[int]:
        length = self.size[axis]
        even = {*range(0, length, self.block), length}
        if not self.finest:
            return even
        first, last = int(np.floor(field[0] + 0.5 + _ROUNDING)), int(np.ceil(field[1] + 0.5 - _ROUNDING))
        ends = {first, last} if self.box else set()
        return even | {end for end in ends if 0 < end < length} | self._near(axis)

    def _near(self, axis: int) -> set[int]:
        """Return bounds that are denser closer to the unit."""
        length = self.size[axis]
        first = int(np.clip(np.floor(self.center[axis] + 0.5), 0, length - 1))
        found, step, away = set(), self.finest, 0
        while step < self.block:
            found |= {first - away, first + 1 + away}
            away += step
            step = max(self.finest, away // _NEAR)
        return {bound for bound in found if 0 < bound < length}

    @property
    def shape(self) -> tuple[int, int]:
        """Number of blocks along y and along x."""
        return len(self.bounds[0]) - 1, len(self.bounds[1]) - 1

    @cached_property
    def edges(self) -> tuple[Array, Array]:
        """Edges of the blocks along y and along x, in pixels."""
        along_y, along_x = (bounds.astype(np.float64) - 0.5 for bounds in self.bounds)
        return along_y, along_x

    @cached_property
    def middles(self) -> tuple[Array, Array]:
        """Middles of the blocks along y and along x."""
        along_y, along_x = ((edges[:-1] + edges[1:]) / 2 for edges in self.edges)
        return along_y, along_x

    @cached_property
    def areas(self) -> Array:
        """(h, w), pixels in each block."""
        return np.outer(*(np.diff(bounds) for bounds in self.bounds)).astype(np.float64)

    @cached_property
    def even(self) -> "Grid":
        """The grid with equal square blocks, as used for thumbnails and tissue."""
        return Grid(self.size, self.block, self.center)

    def evened(self, small: NDArray[np.floating]) -> Array:
        """Convert sums (..., h, w) over this grid's blocks to sums over square blocks."""
        starts = [
            np.searchsorted(bounds, even[:-1]) for bounds, even in zip(self.bounds, self.even.bounds, strict=True)
        ]
        mass: Array = small.astype(np.float64)
        return np.asarray(np.add.reduceat(np.add.reduceat(mass, starts[0], -2), starts[1], -1))

    @cached_property
    def distances(self) -> tuple[Array, Array]:
        """Distances of rows and of columns from the unit's centre, in pixels."""
        along_y, along_x = (
            np.abs(np.arange(length) - center) for length, center in zip(self.size, self.center, strict=True)
        )
        return along_y, along_x

    @property
    def rings(self) -> int:
        """Number of rings."""
        y, x = (float(away.max()) for away in self.distances)
        return number_of_zones(math.hypot(y, x))

    @property
    def frames(self) -> int:
        """Number of square frames."""
        return number_of_zones(max(float(away.max()) for away in self.distances))

    @cached_property
    def ring_areas(self) -> Array:
        """Pixels in each ring."""
        y, x = self.distances
        areas = np.zeros(self.rings)
        for first in range(0, len(y), _ROWS):
            numbers = np.asarray(np.hypot(y[first : first + _ROWS, None], x) / ZONE + 0.5, np.intp)
            areas += np.bincount(np.minimum(numbers, self.rings - 1).ravel(), minlength=self.rings)
        return areas


def number_of_zones(farthest: float) -> int:
    """Return the number of rings or frames up to a distance; a pixel at distance d has index `d / ZONE`, rounded."""
    return int(farthest / ZONE + 0.5) + 1


def outer_edges(count: int) -> Array:
    """Return the outer radii of `count` rings, or half sides of frames, in pixels."""
    return (np.arange(count, dtype=np.float64) + 0.5) * ZONE


SMALL_SIDE = 128
"""Longest side of the downsampled (block-summed) maps that are kept per image."""


def small_block(shape: tuple[int, int]) -> int:
    """Return the block side of the downsampled maps, in pixels, for an image of (height, width)."""
    return -(-max(shape) // SMALL_SIDE)
