"""What an uncertain number is, and how uncertainty is told."""

from dataclasses import dataclass

from erf.errors import InputError

METHODS = {"t": "jackknife-t", "bca": "BCa bootstrap", "percentile": "percentile bootstrap"}
RESAMPLES = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A value and where it may lie; NaN where nothing can be said, as with a single image."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Difference(Interval):
    """How much larger a measure is for the second of two ERFs."""

    p: float
    """Two-sided: 1 less the level at which the jackknife-t interval would just touch 0; at least what an exact test of
    so many images or patients could give."""
    paired: bool
    """Whether both were measured on the same images."""


@dataclass(frozen=True)
class Drawing:
    """How intervals are made, and how images and sides are drawn again."""

    level: float = LEVEL
    resamples: int = RESAMPLES
    """Of the bootstrap and of permutations; the jackknife needs none."""
    method: str = "t"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"interval '{self.method}' not known; expected one of {', '.join(METHODS)}")
        if not 0 < self.level < 1 or self.resamples < 100:
            raise InputError(
                f"level {self.level:g} from {self.resamples} draws; expected a level between 0 and 1, 100 draws or more"
            )
