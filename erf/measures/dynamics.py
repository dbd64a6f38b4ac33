"""Distances between receptive fields: of left and right breasts, of different images, of an image and its mirror.

The claim of Taha et al. (HCT, MICCAI 2022) that a field is dynamic, as numbers. Distributions are maps or curves of
mass, which are scaled to a sum of 1.
"""

import numpy as np

from erf.results.grid import Array


def total_variation(one: Array, two: Array, axes: tuple[int, ...] = (-2, -1)) -> Array:
    """Total variation: share of the mass, 0 to 1, that must be moved to turn one map into the other."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.abs(one / one.sum(axes, keepdims=True) - two / two.sum(axes, keepdims=True)).sum(axes) / 2)


def earth_movers_distance(one: Array, two: Array) -> Array:
    """Mean distance in pixels by which mass must be moved to turn one curve (..., L) into the other."""
    with np.errstate(invalid="ignore", divide="ignore"):
        held = [np.cumsum(curve, -1) / curve.sum(-1, keepdims=True) for curve in (one, two)]
    return np.asarray(np.abs(held[0] - held[1]).sum(-1))


def pairwise_total_variation(small: Array) -> Array:
    """Total variation (N, N) between the maps (N, h, w) of all pairs of images."""
    from scipy.spatial.distance import pdist, squareform

    flat = small.reshape(len(small), -1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(squareform(pdist(flat / flat.sum(-1, keepdims=True), "cityblock")) / 2)


def mean_over_pairs(distances: Array, counts: Array) -> Array:
    """Mean of distances (N, N) over pairs of different images, weighted by counts (..., N)."""
    pairs = np.einsum("...i,ij,...j->...", counts, 1 - np.eye(len(distances)), counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.einsum("...i,ij,...j->...", counts, distances, counts) / pairs)
