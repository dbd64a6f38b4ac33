"""When there are images enough."""

from dataclasses import dataclass, field, replace

from erf.errors import InputError
from erf.intervals.drawing import Drawing, Interval
from erf.intervals.estimation import estimate
from erf.measures import MEASURES, Observations

LOOKS = 3
"""The looks of a run, at half as many more images each time, go wrong no more often than so many independent ones;
found by simulation (docs/measures.md), since what is looked at is the width of the interval, not where it lies."""


@dataclass(frozen=True)
class Precision:
    """When there are images enough: the interval's half width over the value is at most `relative`.

    A run looks again and again, and the first narrow interval may be one that happens to be narrow and wrong. So each
    look takes an interval of a higher level, by Bonferroni's inequality, and that at the stop has the level that was
    asked for.
    """

    relative: float
    measure: str = "r50"
    drawing: Drawing = field(default_factory=Drawing)

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise InputError(f"no measure '{self.measure}' with an interval; expected one of {', '.join(MEASURES)}")
        if not 0 < self.relative < 1:
            raise InputError(
                f"half width {self.relative:g} of the value; expected a share between 0 and 1, such as 0.02"
            )

    def estimate(self, observed: Observations) -> Interval:
        """The measure with its interval, which allows for looks at fewer images before."""
        each = replace(self.drawing, level=1 - (1 - self.drawing.level) / LOOKS)
        return estimate(observed, [MEASURES[self.measure]], each)[self.measure]

    def is_reached(self, interval: Interval) -> bool:
        """Whether an interval is narrow enough; never where there is none."""
        return bool(interval.half_width <= self.relative * abs(interval.value))
