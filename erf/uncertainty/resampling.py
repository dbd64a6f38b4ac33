"""Intervals and differences, and the settings for computing them."""

from dataclasses import dataclass

from erf.errors import InputError

METHODS = {"t": "jackknife-t", "bca": "BCa bootstrap", "percentile": "percentile bootstrap"}
CORRECTION = "Benjamini-Hochberg"
"""Correction of the p values of a table."""

RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A value and its confidence interval; NaN if undetermined, as with a single image."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Difference(Interval):
    """Difference of a measure between two ERFs, second minus first."""

    p: float
    """Two-sided p value: 1 minus the level at which the jackknife-t interval would just touch 0; at least the smallest
    value of an exact test on the same number of images or patients."""
    paired: bool
    """Whether both were measured on the same images."""


@dataclass(frozen=True)
class Resampling:
    """Settings for intervals, resampling and permutation tests.

    Example:
        >>> import erf
        >>> erf.Resampling(level=0.9, resamples=500).level
        0.9
    """

    level: float = LEVEL
    resamples: int = RESAMPLES
    """Number of bootstrap samples and of permutations; the jackknife uses none."""
    method: str = "t"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"interval '{self.method}' not known; expected one of {', '.join(METHODS)}")
        if not 0 < self.level < 1 or self.resamples < 100:
            raise InputError(
                f"level {self.level:g} from {self.resamples} draws; expected a level between 0 and 1, 100 draws or more"
            )
