"""One measure of one ERF, with its interval, in the unit in which it is shown."""

import math
from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np

from erf.comparison.formats import format_interval
from erf.errors import InputError
from erf.measures import MEASURES, Measure, Observations, observe
from erf.results import ERF
from erf.uncertainty import Interval, Resampling
from erf.uncertainty.estimation import estimate


@dataclass(frozen=True)
class Estimate(Interval):
    """A measure with its confidence interval.

    Example:
        >>> from erf.comparison.estimate import Estimate
        >>> Estimate(181.2, 174.4, 188.1, "r50", "px")
        181.2 px [174.4, 188.1]
    """

    name: str = ""
    unit: str = ""
    """Unit of value and limits: 'px', 'mm', 'px²', '%', '°' or '' for a plain number."""

    @classmethod
    def of(cls, interval: Interval, factor: float, name: str, unit: str) -> "Estimate":
        """Return an interval multiplied by the factor of its unit."""
        return cls(factor * interval.value, factor * interval.low, factor * interval.high, name, unit)

    def __str__(self) -> str:
        value, _, interval = format_interval(self).partition(" ")
        unit = self.unit if math.isfinite(self.value) else ""
        return " ".join(part for part in (value, unit, interval) if part)

    __repr__ = __str__

    def __float__(self) -> float:
        return self.value

    def __format__(self, spec: str) -> str:
        return format(self.value, spec) if spec else str(self)


def measure(
    erf: ERF,
    name: str,
    *,
    subset: str = "all",
    definition: str = "",
    resampling: Resampling | None = None,
    by_patient: bool = True,
    millimetres: bool = False,
) -> Estimate:
    """Measure an ERF, with an interval over its images or patients.

    Args:
        erf: The ERF, of which only the stored results are used.
        name: Name of a measure, a key of `erf.MEASURES`.
        subset: Subset of images.
        definition: Definition of the map; '' for the one shown by default.
        resampling: Settings of the interval.
        by_patient: Whether to leave out whole patients if every image names one.
        millimetres: Whether to return a length in millimetres, if pixel spacings are known.

    Returns:
        The value and the limits of its interval.

    Raises:
        InputError: The measure, the subset or the definition does not exist.

    Example:
        >>> import torch, erf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 3, padding=1))
        >>> result = erf.compute(model, n=12, size=(64, 48), layer="1", device="cpu", progress=False)
        >>> found = erf.measure(result, "rms_radius")
        >>> 0 < found.low <= found.value <= found.high < 5 and found.unit == "px"
        True
    """
    chosen = _chosen(name)
    seen = observed(erf, subset, definition or erf.definition, by_patient)
    interval = estimate(seen, [chosen], resampling)[name]
    is_metric = millimetres and chosen.is_length and np.isfinite(seen.spacing)
    factor, unit = (seen.spacing, "mm") if is_metric else (chosen.factor, chosen.unit)
    return Estimate.of(interval, factor, name, unit)


def observed(erf: ERF, subset: str, definition: str, by_patient: bool) -> Observations:
    """Collect the per-image profiles, with images as independent if `by_patient` is false."""
    seen = observe(erf, subset, definition)
    return seen if by_patient else replace(seen, groups=np.arange(len(seen)).astype(str))


def _chosen(name: str) -> Measure:
    if name not in MEASURES:
        near = get_close_matches(name, MEASURES, n=3, cutoff=0.4) or list(MEASURES)
        raise InputError(f"no measure '{name}'; did you mean {' or '.join(near)}?")
    return MEASURES[name]
