"""Where the values of a small map and of a curve lie, in input pixels.

A file keeps of every image its curves at full resolution and a small map of sums over square blocks. Measures of the
plane take a block's mass to be spread evenly over it.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

SMOOTHED_POINTS = 256
"""Curves are smoothed to at most so many means."""

_LEAST_STRETCH, _FROM_LENGTH = 4, 192
"""Axes of this length or more are smoothed at least so much; on shorter ones every pixel counts."""
_POINTS_PER_BLOCK = 8
"""Along each side, where the mass of a block is spread over points."""


@dataclass(frozen=True)
class Grid:
    """The pixels of an input (height, width), square blocks of them, and the unit's centre (y, x)."""

    size: tuple[int, int]
    block: int
    center: tuple[float, float]

    @cached_property
    def edges(self) -> tuple[Array, Array]:
        """Edges of the blocks along y and along x; pixel i reaches from i - 1/2 to i + 1/2."""
        along_y, along_x = (
            np.append(np.arange(0, length, self.block), length) - 0.5 for length in map(float, self.size)
        )
        return along_y, along_x

    @cached_property
    def middles(self) -> tuple[Array, Array]:
        """Middles of the blocks along y and along x."""
        along_y, along_x = ((edges[:-1] + edges[1:]) / 2 for edges in self.edges)
        return along_y, along_x

    @cached_property
    def areas(self) -> Array:
        """(h, w), pixels in each block."""
        along_y, along_x = (np.diff(edges) for edges in self.edges)
        return np.outer(along_y, along_x)

    @cached_property
    def rings(self) -> tuple[Array, Array]:
        """Outer radii (R,) of rings around the unit's centre, and the share of each block (h * w, R) in each."""
        return _zones(self, np.hypot)

    @cached_property
    def frames(self) -> tuple[Array, Array]:
        """Half sides (R,) of square frames around the unit's centre, and the share of each block in each."""
        return _zones(self, np.maximum)

    def ring_masses(self, small: Array) -> Array:
        """Mass (..., R) of small maps (..., h, w) in each of the rings."""
        return np.asarray(small.reshape(*small.shape[:-2], -1) @ self.rings[1])

    def frame_masses(self, small: Array) -> Array:
        """Mass (..., R) of small maps (..., h, w) in each of the frames."""
        return np.asarray(small.reshape(*small.shape[:-2], -1) @ self.frames[1])


@lru_cache(maxsize=8)  # files of one run share their grid
def _zones(grid: Grid, distance: np.ufunc) -> tuple[Array, Array]:
    points_y, points_x = (
        np.abs(_spread(edges) - center) for edges, center in zip(grid.edges, grid.center, strict=True)
    )
    width = max(grid.block / 4, 0.5)
    h, w, n = len(grid.middles[0]), len(grid.middles[1]), _POINTS_PER_BLOCK
    bins = (distance(points_y[:, None], points_x[None]) / width).astype(int)  # (h * n, w * n)
    per_block = bins.reshape(h, n, w, n).transpose(0, 2, 1, 3).reshape(h * w, n * n)
    shares = np.zeros((h * w, int(bins.max()) + 1))
    np.add.at(shares, (np.arange(h * w)[:, None], per_block), 1 / n**2)
    return np.asarray(width * np.arange(1, shares.shape[1] + 1), np.float64), shares


def _spread(edges: Array) -> Array:
    """Points that share each stretch between edges evenly."""
    fractions = (np.arange(_POINTS_PER_BLOCK) + 0.5) / _POINTS_PER_BLOCK
    return (edges[:-1, None] + np.diff(edges)[:, None] * fractions).ravel()


def stretch_length(length: int) -> int:
    """Pixels that share a mean: a power of two, since strides print a pattern with such a period on a curve."""
    least = _LEAST_STRETCH if length >= _FROM_LENGTH else 1
    return int(2 ** np.ceil(np.log2(max(least, length / SMOOTHED_POINTS))))


def smooth(curve: Array, stretch: int) -> tuple[Array, Array]:
    """Positions in pixels, and means of curves (..., L) over stretches of equal length; the last may be shorter."""
    edges = np.arange(0, curve.shape[-1], stretch)
    lengths = np.diff([*edges, curve.shape[-1]])
    return edges + (lengths - 1) / 2, np.add.reduceat(curve, edges, axis=-1) / lengths
