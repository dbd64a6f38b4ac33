"""Stopping criterion: enough images for a given precision."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from erf.errors import InputError
from erf.measures import MEASURES, Observations
from erf.uncertainty.estimation import estimate
from erf.uncertainty.resampling import Interval, Resampling

LOOKS = 3
"""Effective number of independent checks in a run that checks after every increase of images by half.

Found by simulation (docs/measures.md), since the checks look at the width of the interval, not its position."""


@dataclass(frozen=True)
class StoppingRule:
    """Criterion for enough images: the ratio of the interval's half width to the value is at most `relative`.

    A run checks repeatedly, and the first narrow interval may be narrow by chance and wrong. Each check therefore uses
    a higher level, by Bonferroni's inequality, so that the interval at the stop has the requested level.
    """

    relative: float
    measure: str = "r50"
    resampling: Resampling = field(default_factory=Resampling)

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise InputError(f"no measure '{self.measure}' with an interval; expected one of {', '.join(MEASURES)}")
        if not 0 < self.relative < 1:
            raise InputError(
                f"half width {self.relative:g} of the value; expected a share between 0 and 1, such as 0.02"
            )

    @classmethod
    def of(cls, until: Any) -> "StoppingRule":
        """Return a rule, or that of a half width alone; raise `InputError` for anything else."""
        if isinstance(until, StoppingRule):
            return until
        if isinstance(until, float | int | np.floating):
            return cls(float(until))
        raise InputError(f"until {until!r}; expected a share such as 0.02, or a `StoppingRule`")

    def estimate(self, observed: Observations) -> Interval:
        """Compute the measure with an interval corrected for repeated checks."""
        each = replace(self.resampling, level=1 - (1 - self.resampling.level) / LOOKS)
        return estimate(observed, [MEASURES[self.measure]], each)[self.measure]

    def is_reached(self, interval: Interval) -> bool:
        """Whether an interval is narrow enough; False if it is undetermined."""
        return bool(interval.half_width <= self.relative * abs(interval.value))
