"""Mean and variance of a group of maps, merged as in Chan, Golub, LeVeque (Stanford report STAN-CS-79-773)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from erf.results import PROFILE_ARRAYS, Profile, Statistics

_NO_MARGINS = ((0, 0), (0, 0))


@dataclass(frozen=True)
class Moments:
    """Number of maps, their mean (h, w), and the sum of squared deviations from it (h, w)."""

    count: int
    mean: NDArray[np.float64]
    deviations: NDArray[np.float64]
    draws: Profile | None = None
    """Mean profiles of each draw of random projections, stacked; None for a single draw."""

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of the union of both groups of maps."""
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        np.multiply(delta, delta, out=delta)
        delta *= self.count * other.count / count
        delta += self.deviations
        delta += other.deviations
        return Moments(count, mean, delta, _merge_draws(self, other))

    @property
    def variance(self) -> NDArray[np.float64]:
        """Unbiased variance between images (h, w); NaN for a single image."""
        if self.count < 2:
            return np.full_like(self.deviations, np.nan)
        return self.deviations / (self.count - 1)

    def statistics(
        self, dtype: type[np.floating] = np.float32, margins: tuple[tuple[int, int], tuple[int, int]] = _NO_MARGINS
    ) -> Statistics:
        """Convert to the statistics of a result.

        Args:
            dtype: dtype of the maps.
            margins: zeros to add (before, after) along y and x.
        """
        return Statistics(
            self.count,
            np.pad(self.mean.astype(dtype), margins),
            np.pad(self.variance.astype(dtype), margins, constant_values=np.nan if self.count < 2 else 0),
            np.pad(self.mean.sum(0), margins[1]),
            np.pad(self.mean.sum(1), margins[0]),
            self.draws,
        )


def _merge_draws(one: Moments, two: Moments) -> Profile | None:
    if one.draws is None or two.draws is None:
        return None
    share = two.count / (one.count + two.count)
    pairs = ((getattr(one.draws, name), getattr(two.draws, name)) for name in PROFILE_ARRAYS)
    return Profile(*(ours + (theirs - ours) * share for ours, theirs in pairs))
