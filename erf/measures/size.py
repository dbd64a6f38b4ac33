"""Measures of the size of a receptive field.

Maps are downsampled maps (..., h, w) of sums over the blocks of a grid, curves are (..., L) with one value per pixel;
leading axes are a batch. Values must not be negative. All but `replknet_area_ratio` are invariant to scaling the map.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr

from erf.box import Box
from erf.measures.grid import smooth, stretch_length
from erf.results.grid import Array, Grid

_STRETCHES_OF_A_WIDTH = 16
"""Number of bins in a curve's width above which smoothing does not change the width."""
_ROUNDING = 1e-6


def mass_radius(ring_masses: Array, outer: Array, share: float) -> Array:
    """Radius in pixels, around the unit's centre, that holds a share of the mass in rings (..., R) of outer radii (R,).

    Radial cumulative mass is used by several tools, such as OpenERF. Within a ring, mass counts as spread evenly over
    the radius.
    """
    return _enclosing(ring_masses, outer, share)


def mass_square(frame_masses: Array, outer: Array, grid: Grid, share: float) -> Array:
    """Share of the image's area, 0 to 1, in the square around the unit's centre that holds a share of the mass.

    The area ratio of Ding et al. (RepLKNet, CVPR 2022) without its logarithm, so that it does not depend on the scale
    of the gradient, and around the unit instead of the middle of the image. The square may reach beyond the image.
    """
    half_sides = _enclosing(frame_masses, outer, share)
    return (2 * half_sides) ** 2 / (grid.size[0] * grid.size[1])


def _enclosing(mass: Array, outer: Array, share: float) -> Array:
    """Distance from the centre within which zones with outer edges (R,) hold a share of the mass (..., R)."""
    inside = np.cumsum(mass, axis=-1)
    wanted = share * inside[..., -1:]
    index = np.minimum((inside < wanted).sum(-1), len(outer) - 1)[..., None]
    after = np.take_along_axis(inside, index, -1)
    before = after - np.take_along_axis(mass, index, -1)
    inner = np.concatenate([[0.0], outer[:-1]])[index]
    with np.errstate(invalid="ignore", divide="ignore"):
        part = (wanted - before) / (after - before)
    return (inner + part * (outer[index] - inner))[..., 0]


def radial_mass(values: NDArray[np.floating], radii: Sequence[float], center: tuple[float, float]) -> Array:
    """Share of the mass of a map within radii around a centre.

    Pixels count whole, by the distance of their middle, as in OpenERF; so the share within the radius `r50` is a half
    but for the pixels on the circle.

    Args:
        values: Map (H, W) without negative values.
        radii: R radii in pixels.
        center: (y, x) in pixels.

    Returns:
        Shares (R,), 0 to 1; NaN of a map that is zero everywhere.

    Example:
        >>> import erf, numpy as np
        >>> erf.radial_mass(np.ones((5, 5)), [0, 1, 10], center=(2, 2))
        array([0.04, 0.2 , 1.  ])
    """
    weights = np.asarray(values, np.float64)
    y, x = (np.arange(length) - at for length, at in zip(weights.shape, center, strict=True))
    away = np.hypot(y[:, None], x)
    with np.errstate(invalid="ignore"):
        return np.array([weights[away <= radius].sum() for radius in radii]) / weights.sum()


def rms_radius(across_rows: Array, across_columns: Array, grid: Grid) -> Array:
    """Root of the mean squared distance from the unit's centre, in pixels; exact, from both curves.

    A uniform square of side k centred on the unit has sqrt((k² - 1) / 6).
    """
    squares = [
        _mean(np.square(np.arange(curve.shape[-1], dtype=np.float64) - center), curve)
        for curve, center in ((across_columns, grid.center[0]), (across_rows, grid.center[1]))
    ]
    return np.sqrt(squares[0] + squares[1])


def _mean(values: Array, weights: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(weights @ values / weights.sum(-1))


def effective_area(small: Array, grid: Grid) -> Array:
    """Area in px² of a uniform map with the same entropy: exp(-sum p log p).

    Perplexity; as a complexity of attributions in Bhatt, Weller, Moura (IJCAI 2020). A block's mass counts as evenly
    spread, so that a field within one block has the area of the block.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        p = small / small.sum((-2, -1), keepdims=True)
        return np.asarray(np.exp(-rel_entr(p, grid.areas).sum((-2, -1))))


def shortest_half(curve: Array) -> float:
    """Length in pixels of the shortest interval of a curve (L,) that holds half of its mass."""
    held = np.concatenate([[0.0], np.cumsum(curve)])
    ends = np.searchsorted(held, held + held[-1] / 2)
    return float(np.where(ends < len(held), ends - np.arange(len(held)), len(curve)).min())


def width_stretch(curve: Array) -> int:
    """Bin width in pixels for smoothing a curve (L,) without changing its width at half maximum.

    Strides cause a comb pattern in a curve, so widths are measured on means over bins, initially of `stretch_length`.
    The bin width is halved until the curve's width has enough bins. Smoothing widens a peak by less than two bins: if
    halving removes more, it exposes a comb, and the bin width is kept.
    """
    stretch = stretch_length(curve.shape[-1])
    width = float(width_at_half(curve, stretch))
    while stretch > 1 and width < _STRETCHES_OF_A_WIDTH * stretch:
        narrower = float(width_at_half(curve, stretch // 2))
        if narrower < width - 2 * stretch:
            break
        stretch, width = stretch // 2, narrower
    return stretch


def width_at_half(curve: Array, stretch: int) -> Array:
    """Full width at half maximum of a curve, in pixels, between the first falls to half on either side of its maximum.

    Measured on means over bins of `stretch` pixels (`width_stretch`). A curve that does not fall to half before the
    edge of the image is measured up to the edge.
    """
    positions, means = smooth(curve, stretch)
    top = means.argmax(-1)[..., None]
    half = np.take_along_axis(means, top, -1) / 2
    places = np.arange(means.shape[-1])
    low = means < half
    right = np.where(low & (places > top), places, places[-1] + 1).min(-1)
    left = np.where(low & (places < top), places, -1).max(-1)
    last = np.float64(curve.shape[-1] - 0.5)
    ends = [
        _crossing(means, positions, right, -1, half[..., 0], last),
        _crossing(means, positions, left, 1, half[..., 0], -0.5),
    ]
    width = np.asarray(ends[0] - ends[1])
    return np.where(half[..., 0] > 0, width, np.nan)


def _crossing(
    means: Array, positions: Array, outside: NDArray[np.intp], inwards: int, half: Array, edge: float
) -> Array:
    """Position of the crossing of half the maximum, between a bin outside and its inner neighbour; else the edge."""
    beyond = (outside < 0) | (outside >= means.shape[-1])
    out = np.clip(outside, 0, means.shape[-1] - 1)
    inner = np.clip(out + inwards, 0, means.shape[-1] - 1)
    low, high = (np.take_along_axis(means, place[..., None], -1)[..., 0] for place in (out, inner))
    with np.errstate(invalid="ignore", divide="ignore"):
        part = (half - low) / (high - low)
        crossing = positions[out] + part * (positions[inner] - positions[out])
    return np.where(beyond, edge, crossing)


def luo_size(small: Array, grid: Grid, near: float = 0.0) -> Array:
    """Root of the area, in pixels, where a map exceeds 4.55 % of its value at the unit's centre.

    Luo et al. (NIPS 2016, section 3): within two standard deviations of a Gaussian. The value at the centre is the mean
    over the block there, and over those up to `near` pixels from it, so that it is not that of one pixel of a comb.
    """
    density = small / grid.areas
    y, x = (
        int(np.clip(np.searchsorted(bounds, center + 0.5, "right") - 1, 0, len(bounds) - 2))
        for bounds, center in zip(grid.bounds, grid.center, strict=True)
    )
    away = np.hypot(*np.ix_(*(middles - center for middles, center in zip(grid.middles, grid.center, strict=True))))
    middle = away <= near
    middle[y, x] = True
    top = small[..., middle].sum(-1) / grid.areas[middle].sum()
    above = density > (1 - 0.9545) * top[..., None, None]
    return np.sqrt((above * grid.areas).sum((-2, -1)))


def share_inside(small: Array, grid: Grid, box: Box[float] | None) -> Array:
    """Share of the mass, 0 to 1, in blocks that touch a box; 1 where there is no box.

    Blocks end at the pixels in which the box ends, but for older files.
    """
    if box is None:
        return np.ones(small.shape[:-2])
    rows, columns = (
        (edges[1:] > first + _ROUNDING) & (edges[:-1] < end - _ROUNDING)
        for edges, (first, end) in zip(grid.edges, box.axes, strict=True)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(small[..., rows, :][..., columns].sum((-2, -1)) / small.sum((-2, -1)))


def replknet_area_ratio(values: NDArray[np.floating], share: float) -> float:
    """High-contribution area ratio of a map (H, W) as its authors compute it: area of a square over that of the image.

    Ding et al. RepLKNet, CVPR 2022 (arXiv 2203.06717), Table 7: the smallest square of odd side around pixel
    (H // 2, W // 2) that holds more than a share of log10(1 + map), scaled to a maximum of 1. NaN where none does.

    Defects, kept: because of the logarithm it changes when the map is multiplied by a number; it is centred on the
    image, not on the unit; of a uniform map it is the share itself.
    """
    scaled = np.log10(np.asarray(values, np.float64) + 1)
    scaled /= scaled.max()
    height, width = scaled.shape
    sums = np.pad(scaled.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    for half in range(1, min(height, width) // 2):
        top, left, side = height // 2 - half, width // 2 - half, 2 * half + 1
        inside = sums[top + side, left + side] - sums[top, left + side] - sums[top + side, left] + sums[top, left]
        if inside / sums[-1, -1] > share:
            return side**2 / (height * width)
    return float("nan")
