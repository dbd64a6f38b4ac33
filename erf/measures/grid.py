"""Rings and frames for older files, which store blocks only, and smoothing of curves over bins of pixels."""

from functools import lru_cache

import numpy as np

from erf.results.grid import Array, Grid

SMOOTHED_POINTS = 256
"""Largest number of bins to which a curve is smoothed."""

_LEAST_STRETCH, _FROM_LENGTH = 4, 192
"""Smallest bin width, and axis length from which it applies; shorter axes are not smoothed."""
_POINTS_PER_BLOCK = 8
"""Number of points per side over which the mass of a block is spread."""


@lru_cache(maxsize=8)  # files of one run share their grid
def zones_of_blocks(grid: Grid, distance: np.ufunc) -> tuple[Array, Array]:
    """Outer edges (R,) of zones a quarter of a block wide, and the share of each block (h * w, R) in each.

    `distance` of rows and columns is `np.hypot` for rings, `np.maximum` for square frames.
    """
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
    """Points that divide each interval between edges evenly."""
    fractions = (np.arange(_POINTS_PER_BLOCK) + 0.5) / _POINTS_PER_BLOCK
    return (edges[:-1, None] + np.diff(edges)[:, None] * fractions).ravel()


def stretch_length(length: int) -> int:
    """Bin width in pixels: a power of two, since strides cause a pattern with such a period in a curve."""
    least = _LEAST_STRETCH if length >= _FROM_LENGTH else 1
    return int(2 ** np.ceil(np.log2(max(least, length / SMOOTHED_POINTS))))


def smooth(curve: Array, stretch: int) -> tuple[Array, Array]:
    """Bin centres in pixels, and means of curves (..., L) over bins of equal width; the last may be narrower."""
    edges = np.arange(0, curve.shape[-1], stretch)
    lengths = np.diff([*edges, curve.shape[-1]])
    return edges + (lengths - 1) / 2, np.add.reduceat(curve, edges, axis=-1) / lengths
