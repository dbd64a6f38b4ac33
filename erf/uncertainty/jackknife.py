"""Jackknife: estimates, and their changes when one image or patient is left out.

The sum of squares of these changes is the variance of an estimate (Efron, Tibshirani. An introduction to the bootstrap,
1993, chapter 11). How far the estimate may lie from the truth follows from the distribution of the ratio of both
(`erf.uncertainty.ratio`), which depends on how much each patient weighs: in a mean map, an image counts with the size
of its gradient, so that a hundred images may tell no more than ten.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from erf.measures import Measure, Observations, Sample
from erf.results.grid import Array
from erf.uncertainty.ratio import ErrorRatio

MOST_GROUPS = 400
"""Largest number of jackknife groups; with more images or patients, several are left out together."""

_BATCH = 256
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Groups:
    """Jackknife groups of images that are left out together, and strata of groups with the same lateralities."""

    numbers: NDArray[np.intp]
    """(N,), the group of each image."""
    strata: tuple[NDArray[np.intp], ...]

    @classmethod
    def of(cls, observed: Observations) -> "Groups":
        """Group by patient or image, merging several if there are more than `MOST_GROUPS`."""
        count = int(observed.grouping.max()) + 1
        merged, strata, start = np.empty(count, np.intp), [], 0
        for members in observed.strata:
            kept = min(len(members), max(2, MOST_GROUPS * len(members) // count))
            merged[members] = start + np.arange(len(members)) % kept
            strata.append(np.arange(start, start + kept))
            start += kept
        return cls(merged[observed.grouping], tuple(strata))

    def __len__(self) -> int:
        return sum(map(len, self.strata))

    def summed(self, values: Array) -> Array:
        """(G,), sums of values (N,) of images."""
        return np.bincount(self.numbers, values, len(self)).astype(np.float64)

    @cached_property
    def centering(self) -> Array:
        """(G, G), matrix that subtracts the stratum's mean from the value of each group."""
        out = np.zeros((len(self), len(self)))
        for members in self.strata:
            n = len(members)
            out[np.ix_(members, members)] = math.sqrt(n / max(n - 1, 1)) * (np.eye(n) - 1 / n)
        return out

    def without_one(self) -> Iterable[Array]:
        """Yield batches of counts (..., N): first all images, then all but one group."""
        counts = np.arange(-1, len(self))
        for start in range(0, len(counts), _BATCH):
            yield (counts[start : start + _BATCH, None] != self.numbers).astype(np.float64)


@dataclass(frozen=True)
class Estimates:
    """K estimates, their changes without each group, and the distributions of error over standard error."""

    values: Array
    """(K,)"""
    changes: Array
    """(K, G), less the mean of the stratum."""
    kinds: Sequence[str]
    """(K,), key in `ratios` of each estimate."""
    ratios: Mapping[str, ErrorRatio]
    least_p: float = 0.0
    """Smallest p value of an exact test with this number of groups."""

    @property
    def errors(self) -> Array:
        """(K,), root of the sum of squares of the changes; 0 if only numerical noise."""
        found = np.linalg.norm(self.changes, axis=1)
        return np.where(found <= _ROUNDING * np.abs(self.values), 0, found)

    def minus(self, other: "Estimates") -> "Estimates":
        """The difference to estimates of the same groups."""
        return Estimates(
            self.values - other.values,
            self.changes - other.changes,
            self.kinds,
            {kind: ratio + other.ratios[kind] for kind, ratio in self.ratios.items()},
            2.0 ** (1 - self.changes.shape[1]),  # signs of groups
        )

    def minus_apart(self, other: "Estimates") -> "Estimates":
        """The difference to estimates of other groups, whose values may vary more or less (Behrens, Fisher)."""
        count, others = self.changes.shape[1], other.changes.shape[1]
        return Estimates(
            self.values - other.values,
            np.concatenate([self.changes, -other.changes], 1),
            [str(number) for number in range(len(self.values))],
            {
                str(number): self.ratios[kind].added_to_independent(other.ratios[kind], scale)
                for number, (kind, scale) in enumerate(zip(self.kinds, self._scales(other), strict=True))
            },
            2 / math.comb(count + others, count),  # ways to assign groups to the two
        )

    def _scales(self, other: "Estimates") -> Array:
        """(K,), ratio of the other's standard deviation of a value to one's own; 1 if unknown."""
        own, theirs = (
            each.errors / [each.ratios[kind].expected_error for kind in each.kinds] for each in (self, other)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.clip(np.nan_to_num(theirs / own, nan=1.0), 1e-6, 1e6))

    def reaches(self, level: float) -> Array:
        """(K,), half widths of intervals; NaN if undetermined."""
        quantiles = {kind: ratio.quantile(level) for kind, ratio in self.ratios.items()}
        with np.errstate(invalid="ignore"):
            return np.asarray(self.errors * [quantiles[kind] for kind in self.kinds])

    def p_of_zero(self) -> Array:
        """(K,), two-sided p values of the hypothesis that the estimate is 0."""
        return np.array(
            [
                self._p(value, error, self.ratios[kind])
                for value, error, kind in zip(self.values, self.errors, self.kinds, strict=True)
            ]
        )

    def _p(self, value: float, error: float, ratio: ErrorRatio) -> float:
        if not math.isfinite(value) or not math.isfinite(error):
            return math.nan
        if error == 0:
            return 1.0 if value == 0 else self.least_p
        return max(ratio.exceeds(abs(value) / error), self.least_p)


def leave_out(
    values: Callable[[Array], Array], groups: Groups, weights: Mapping[str, Sequence[Array]], kinds: Sequence[str]
) -> Estimates:
    """Compute K estimates and their jackknife changes.

    Args:
        values: Function of the counts (..., N) of the images that returns the estimates (K, ...).
        groups: Groups to leave out.
        weights: Weights (N,) of the images by kind; several for a kind whose parts have independent errors, such as
            left and right breasts.
        kinds: Kind of weights of each estimate.

    Returns:
        Estimates, changes (K, G), and error distributions.
    """
    found = np.concatenate([values(counts) for counts in groups.without_one()], axis=1)
    changes = (found[:, 1:] - found[:, :1]) @ groups.centering.T
    return Estimates(found[:, 0], changes, kinds, {name: _ratio(parts, groups) for name, parts in weights.items()})


def _ratio(parts: Sequence[Array], groups: Groups) -> ErrorRatio:
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = [groups.summed(part / part.sum()) for part in parts]
        first, *others = [ErrorRatio.of_weighted_mean(share, groups.centering) for share in shares]
    return sum(others, first)


def leave_out_of(observed: Observations, measures: Sequence[Measure], groups: Groups) -> Estimates:
    """Compute measures of an ERF and their jackknife changes.

    Args:
        observed: Observations of the ERF.
        measures: Measures to compute.
        groups: Groups to leave out.

    Returns:
        One estimate per measure.
    """
    mass = observed.across_rows.sum(1)
    weights = {
        "mass": [mass],
        "images": [np.ones(len(observed))],
        "sides": [mass * (observed.sides == side) for side in ("left", "right")],
    }
    kinds = [measure.weighing for measure in measures]

    def values(counts: Array) -> Array:
        sample = Sample(observed, counts)
        return np.stack([np.asarray(measure.of(sample)) for measure in measures])

    return leave_out(values, groups, {kind: weights[kind] for kind in dict.fromkeys(kinds)}, kinds)
