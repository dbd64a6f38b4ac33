"""Measures of ERFs with their intervals, and differences with their p values.

Both come from the jackknife (`erf.uncertainty.jackknife`), so that p < 0.05 wherever the 95 % interval of a difference
excludes 0. Intervals can be computed by the bootstrap instead; p values stay the same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from erf.measures import Measure, Observations, Sample, interleaved
from erf.results.grid import Array
from erf.uncertainty.bootstrap import bootstrap_interval
from erf.uncertainty.jackknife import Estimates, Groups, leave_out, leave_out_of
from erf.uncertainty.resampling import Difference, Interval, Resampling
from erf.uncertainty.threads import map_in_threads


def estimate(
    observed: Observations, measures: Sequence[Measure], resampling: Resampling | None = None
) -> dict[str, Interval]:
    """Each measure with its interval over images, or patients."""
    return contrast([observed], measures, resampling)[0][0]


def compare(
    one: Observations, two: Observations, measures: Sequence[Measure], resampling: Resampling | None = None
) -> dict[str, Difference]:
    """Differences of measures, two minus one; paired where both have the same images."""
    return contrast([one, two], measures, resampling)[1][0]


def contrast(
    observed: Sequence[Observations], measures: Sequence[Measure], resampling: Resampling | None = None
) -> tuple[list[dict[str, Interval]], list[dict[str, Difference]]]:
    """Compute measures of several ERFs, and their differences to the first.

    Args:
        observed: Observations of each ERF.
        measures: Measures to compute.
        resampling: Settings of the intervals; default if None.

    Returns:
        Intervals by measure for each ERF, and differences by measure for each but the first; a difference is paired if
        both ERFs have the same images, in any order.
    """
    resampling = resampling or Resampling()
    first, *others = observed
    pairing = [are_paired(first, other) for other in others]
    seen = [first, *(_like(other, first) if paired else other for other, paired in zip(others, pairing, strict=True))]
    found = map_in_threads(lambda each: leave_out_of(each, measures, Groups.of(each)), seen)
    intervals = [
        _intervals(measures, estimates, [each], partial(_one_of, each, measures), resampling)
        for each, estimates in zip(seen, found, strict=True)
    ]
    differences = [
        _differences(measures, found[0], estimates, first, other, resampling, paired)
        for other, estimates, paired in zip(seen[1:], found[1:], pairing, strict=True)
    ]
    return intervals, differences


def vary(
    observed: Observations,
    values: Callable[[Array], Array],
    weights: Mapping[str, Array],
    limits: tuple[float, float],
    resampling: Resampling,
) -> dict[str, Interval]:
    """Compute intervals of K named statistics.

    Args:
        observed: Observations of one ERF.
        values: Function of the counts (..., N) of the images that returns the statistics (K, ...).
        weights: For each name, the weights (N,) of the images in the statistic.
        limits: Smallest and largest possible value, to which intervals are clipped.
        resampling: Settings of the intervals.

    Returns:
        Intervals by name.
    """
    found = leave_out(values, Groups.of(observed), {name: [own] for name, own in weights.items()}, list(weights))
    edges = _edges(found, [observed], lambda counts: values(counts[0]), resampling)
    return _named(list(weights), found.values, *np.clip(edges, *limits))


def are_paired(one: Observations, two: Observations) -> bool:
    """Whether two ERFs have the same images, each exactly once."""
    return sorted(one.keys) == sorted(two.keys) and len(set(one.keys)) == len(one)


def same_order(other: Observations, first: Observations) -> NDArray[np.intp]:
    """Rows of one ERF's images in the order of another's."""
    rows = {key: row for row, key in enumerate(other.keys)}
    return np.array([rows[key] for key in first.keys])


def convergence(
    observed: Observations, measure: Measure, resampling: Resampling | None = None, points: int = 12
) -> list[tuple[int, Interval]]:
    """Compute a measure and its interval on the first n images, balanced over sides, for increasing n.

    Args:
        observed: Observations of one ERF, in the random order of the run.
        measure: Measure to compute.
        resampling: Settings of the intervals; default if None.
        points: Largest number of values of n, spaced geometrically.

    Returns:
        Pairs of n and interval.
    """
    order = interleaved(observed.sides)
    numbers = np.unique(np.geomspace(min(4, len(order)), len(order), points).round().astype(int))
    return [(int(n), estimate(observed.pick(order[:n]), [measure], resampling)[measure.name]) for n in numbers]


def _like(other: Observations, first: Observations) -> Observations:
    """Reorder images to match those of another ERF, and use its groups."""
    return replace(other.pick(same_order(other, first)), groups=first.groups, sides=first.sides)


def _one_of(observed: Observations, measures: Sequence[Measure], counts: list[Array]) -> Array:
    """Measures (K, ...) of the resampled last ERF."""
    sample = Sample(observed, counts[-1])
    return np.stack([np.asarray(measure.of(sample)) for measure in measures])


def _intervals(
    measures: Sequence[Measure],
    estimates: Estimates,
    drawn_from: Sequence[Observations],
    values: Callable[[list[Array]], Array],
    resampling: Resampling,
) -> dict[str, Interval]:
    low, high = _edges(estimates, drawn_from, values, resampling)
    least, most = np.array([measure.limits for measure in measures]).T
    return _named(
        [measure.name for measure in measures], estimates.values, np.clip(low, least, most), np.clip(high, least, most)
    )


def _differences(
    measures: Sequence[Measure],
    one: Estimates,
    two: Estimates,
    first: Observations,
    other: Observations,
    resampling: Resampling,
    paired: bool,
) -> dict[str, Difference]:
    def values(counts: list[Array]) -> Array:
        return _one_of(other, measures, counts) - _one_of(first, measures, counts[:1])

    found = two.minus(one) if paired else two.minus_apart(one)
    low, high = _edges(found, [first] if paired else [first, other], values, resampling)
    rows = np.stack([found.values, low, high, found.p_of_zero()], -1).tolist()
    return {
        measure.name: Difference(value, low, high, p, paired)
        for measure, (value, low, high, p) in zip(measures, rows, strict=True)
    }


def _edges(
    estimates: Estimates,
    drawn_from: Sequence[Observations],
    values: Callable[[list[Array]], Array],
    resampling: Resampling,
) -> tuple[Array, Array]:
    if resampling.method != "t":
        return bootstrap_interval(drawn_from, values, resampling)
    reach = estimates.reaches(resampling.level)
    return estimates.values - reach, estimates.values + reach


def _named(names: Sequence[str], values: Array, low: Array, high: Array) -> dict[str, Interval]:
    rows = np.stack([values, low, high], -1).tolist()
    return {name: Interval(*row) for name, row in zip(names, rows, strict=True)}
