"""Per-image profile of a complete map, as a run computes it band by band."""

import numpy as np

from erf.results import Profile
from erf.results.grid import ZONE, Array, Grid


def profile_of(values: Array, grid: Grid) -> Profile:
    """Return the sums of a map (H, W) that a file keeps of each image, over the blocks and zones of a grid."""
    away_y, away_x = grid.distances
    y, x = (np.arange(length) - center for length, center in zip(grid.size, grid.center, strict=True))
    rows = np.add.reduceat(values, grid.bounds[0][:-1], axis=0)
    sums = {
        "across_rows": values.sum(0),
        "across_columns": values.sum(1),
        "small": np.add.reduceat(rows, grid.bounds[1][:-1], axis=1),
        "rings": _zones(np.hypot(away_y[:, None], away_x), values, grid.rings),
        "frames": _zones(np.maximum(away_y[:, None], away_x), values, grid.frames),
        "cross_moment": np.array([y @ values @ x]),
    }
    return Profile(**{name: each.astype(np.float32) for name, each in sums.items()})


def _zones(away: Array, values: Array, count: int) -> Array:
    """Sum a map over zones by the distance of its pixels."""
    numbers = np.minimum((away / ZONE + 0.5).astype(np.intp), count - 1)
    return np.asarray(np.bincount(numbers.ravel(), values.ravel(), count), np.float64)
