"""The distribution of an estimate's error over its jackknife standard error, where groups weigh unequally.

Of equal weights it is Student's t. Of unequal ones a t distribution with fewer degrees of freedom is usual (Bell,
McCaffrey, Survey Methodology 2002), which is too wide where one group outweighs the others. Under normal errors the
distribution itself is an integral over one angle: P(X² >= q) of a standard normal X, in the form of Craig (MILCOM
1991), averaged over a quadratic form q.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from scipy.linalg import block_diag
from scipy.optimize import brentq
from scipy.special import ndtri

from erf.results.grid import Array

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_LEAST, _MOST = -20, 20
"""Search range of quantiles, as logarithms of ratios."""
_SQUARED_SINES = np.sin(np.pi / 4 * (_NODES + 1)) ** 2


@dataclass(frozen=True)
class ErrorRatio:
    """Distribution of T = e / |d| for a jointly normal error e and deviations d (G,).

    The deviations are those of the jackknife: the changes of an estimate without each group.
    """

    deviations: Array
    """(G, G), covariance of the deviations."""
    mixed: Array
    """(G,), covariance of the deviations and the error."""
    variance: float
    """Variance of the error."""

    @classmethod
    def of_weighted_mean(cls, weights: Array, centering: Array) -> Self:
        """Distribution for a mean of independent values of equal variance, with weights (G,) that sum to 1.

        Without group i it changes by w_i / (1 - w_i) times the distance of value i from the mean. `centering` (G, G) is
        applied to the deviations.
        """
        square = weights @ weights
        leverage = weights / (1 - weights)
        covariance = np.diag(leverage**2) + np.outer(leverage, leverage) * (square - weights - weights[:, None])
        return cls(centering @ covariance @ centering.T, centering @ (leverage * (weights - square)), float(square))

    def __add__(self, other: Self) -> Self:
        """Distribution for the sum of two independent errors whose deviations, of the same groups, add up."""
        return type(self)(self.deviations + other.deviations, self.mixed + other.mixed, self.variance + other.variance)

    def added_to_independent(self, other: Self, scale: float) -> Self:
        """Distribution for the sum of two errors of different groups; `scale` is the ratio of standard deviations."""
        return type(self)(
            block_diag(self.deviations, scale**2 * other.deviations),
            np.concatenate([self.mixed, scale**2 * other.mixed]),
            self.variance + scale**2 * other.variance,
        )

    @cached_property
    def _modes(self) -> tuple[Array, Array]:
        """Variances of independent combinations of the deviations, and the share of the error's variance in each.

        The first combination is constant; its share is the part of the error independent of the deviations.
        """
        values, vectors = np.linalg.eigh(self.deviations)
        varies = values > 1e-12 * values[-1]
        shares = (self.mixed @ vectors[:, varies]) ** 2 / values[varies]
        rest = max(self.variance - float(shares.sum()), 0)
        return np.append(0, values[varies]), np.append(rest, shares)

    @property
    def is_known(self) -> bool:
        """Whether the deviations are informative, unlike those of a single group."""
        return bool(np.isfinite(self.deviations).all() and np.trace(self.deviations) > 0)

    @property
    def expected_error(self) -> float:
        """Root of the expected sum of squares of the deviations, for values of unit variance."""
        return float(np.sqrt(np.trace(self.deviations)))

    def exceeds(self, ratio: float) -> float:
        """Probability that |T| is at least `ratio`; NaN if undetermined."""
        if not self.is_known:
            return float("nan")
        values, shares = self._modes
        values = max(ratio, np.exp(_LEAST)) ** 2 * values

        # e² - t² d'd has a single positive eigenvalue, the root of its secular equation.
        def secular(root: float) -> float:
            return float((shares / (root + values)).sum() - 1)

        least = 1e-15 * self.variance
        if secular(least) <= 0:
            return 0.0  # the error is a combination of the deviations, and T is bounded
        largest = brentq(secular, least, 2 * self.variance, xtol=least)
        at = largest * _SQUARED_SINES[:, None]
        last = (shares / (largest + values) * at / (at + values)).sum(1)
        logarithm = np.log1p(values / at).sum(1) + np.log(last)
        return float(min(_WEIGHTS @ np.exp(-logarithm / 2) / 2, 1.0))

    def quantile(self, level: float) -> float:
        """Quantile of |T| at a level; infinite beyond the search range, NaN if undetermined."""
        if not self.is_known:
            return float("nan")

        def excess(logarithm: float) -> float:
            return float(np.log(max(self.exceeds(np.exp(logarithm)), 1e-300) / (1 - level)))

        low = float(np.log(ndtri((1 + level) / 2) * np.sqrt(self.variance) / self.expected_error)) - 0.5
        while excess(low) < 0 and low > _LEAST:
            low -= 1
        high = low + 1
        while excess(high) > 0:
            high += 2
            if high > _MOST:
                return float("inf")
        return float(np.exp(brentq(excess, low, high, xtol=1e-9)))
