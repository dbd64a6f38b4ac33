"""How wide a receptive field is.

Maps are small maps (..., h, w) of block sums, curves are (..., L) with one value per pixel; leading axes are a batch.
Nothing may be negative. All but `replknet_area_ratio` are the same of a map that is multiplied by a number.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr

from erf.measures.grid import Array, Grid, smooth, stretch_length


def mass_radius(ring_masses: Array, grid: Grid, share: float) -> Array:
    """Radius in pixels, around the unit's centre, that holds a share of the mass in rings (..., R).

    Radial cumulative mass is used by several tools, such as OpenERF. Rings are a quarter of a block wide; within one,
    mass counts as spread evenly over the radius.
    """
    return _enclosing(ring_masses, grid.rings[0], share)


def mass_square(frame_masses: Array, grid: Grid, share: float) -> Array:
    """Share of the image's area, 0 to 1, in the square around the unit's centre that holds a share of the mass.

    The area ratio of Ding et al. (RepLKNet, CVPR 2022) without its logarithm, so that it does not depend on the scale
    of the gradient, and around the unit instead of the middle of the image. The square may reach beyond the image.
    """
    half_sides = _enclosing(frame_masses, grid.frames[0], share)
    return (2 * half_sides) ** 2 / (grid.size[0] * grid.size[1])


def _enclosing(mass: Array, outer: Array, share: float) -> Array:
    """Outer edge of the zones (R,) that hold a share of the mass (..., R), from the inside."""
    inside = np.cumsum(mass, axis=-1)
    wanted = share * inside[..., -1:]
    index = np.minimum((inside < wanted).sum(-1), len(outer) - 1)[..., None]
    after = np.take_along_axis(inside, index, -1)
    before = after - np.take_along_axis(mass, index, -1)
    width = outer[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        part = (wanted - before) / (after - before)
    return (outer[index] - width * (1 - part))[..., 0]


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
    """Pixels among which the mass could be shared evenly with the same entropy: exp(-sum p log p), in px².

    Perplexity; as a complexity of attributions in Bhatt, Weller, Moura (IJCAI 2020). A block's mass counts as evenly
    spread, so that a field within one block has the area of the block.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        p = small / small.sum((-2, -1), keepdims=True)
        return np.asarray(np.exp(-rel_entr(p, grid.areas).sum((-2, -1))))


def width_at_half(curve: Array) -> Array:
    """Full width at half maximum of a curve, in pixels, where it first falls to half on either side of its top.

    Taken on means over stretches of pixels (`stretch_length`), since strides print a comb on a curve. A curve that does
    not fall to half before the image ends is as wide as up to the edge.
    """
    stretch = stretch_length(curve.shape[-1])
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
    """Where a curve crosses half its top, between a place outside and its neighbour inwards; the edge where none is."""
    beyond = (outside < 0) | (outside >= means.shape[-1])
    out = np.clip(outside, 0, means.shape[-1] - 1)
    inner = np.clip(out + inwards, 0, means.shape[-1] - 1)
    low, high = (np.take_along_axis(means, place[..., None], -1)[..., 0] for place in (out, inner))
    with np.errstate(invalid="ignore", divide="ignore"):
        part = (half - low) / (high - low)
    crossing = positions[out] + part * (positions[inner] - positions[out])
    return np.where(beyond, edge, crossing)


def luo_size(small: Array, grid: Grid) -> Array:
    """Root of the area, in pixels, where a map exceeds 4.55 % of its value at the unit's centre.

    Luo et al. (NIPS 2016, section 3): within two standard deviations of a Gaussian. One block decides the threshold, so
    it is as noisy as that block.
    """
    density = small / grid.areas
    y, x = (int((center + 0.5) // grid.block) for center in grid.center)
    above = density > (1 - 0.9545) * density[..., y, x][..., None, None]
    return np.sqrt((above * grid.areas).sum((-2, -1)))


def share_inside(small: Array, grid: Grid, box: tuple[float, float, float, float] | None) -> Array:
    """Share of the mass, 0 to 1, in blocks that touch a box (top, bottom, left, right); 1 where there is no box."""
    if box is None:
        return np.ones(small.shape[:-2])
    (y, x), (top, bottom, left, right) = grid.edges, box
    rows, columns = (y[1:] > top) & (y[:-1] < bottom), (x[1:] > left) & (x[:-1] < right)
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
