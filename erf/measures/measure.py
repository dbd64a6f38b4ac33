"""Measure: one number of an ERF, computed from the per-image profiles."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from erf.measures.observations import Sample
from erf.results.grid import Array

RESOLUTION = {
    "curves": "1 px",
    "sums": "½ px or less; in files of version 1 that of blocks",
    "blocks": "1 px at the unit, an eighth of the distance from it; withheld for fields narrower than three blocks",
    "tissue": "square blocks of a 128th of the image; withheld where a field is narrower than three",
}
"""Resolution of each part of the per-image profiles."""


@dataclass(frozen=True, repr=False)
class Measure:
    """One number of an ERF."""

    name: str
    group: str
    """'size', 'shape', 'position' or 'dynamics'."""
    description: str
    unit: str
    """'px', 'px²', '%', '°' or '' for a plain number."""
    bounds: str
    source: str
    part: str
    """Part of the per-image profile from which it is computed, a key of `RESOLUTION`."""
    compute: Callable[[Sample], Array]
    limits: tuple[float, float] = (-np.inf, np.inf)
    """Lower and upper limit of the result of `of`."""
    weighing: str = "mass"
    """Weight of an image in the measure: its 'mass', its mass within its side ('sides'), or equal ('images')."""

    def __repr__(self) -> str:
        unit = f" [{self.unit}]" if self.unit else ""
        return f"Measure {self.name}{unit}, {self.group}: {self.description}"

    def of(self, sample: Sample) -> Array:
        """Compute the measure for a batch of samples, as fractions instead of per cent; NaN if not resolved."""
        values = self.compute(sample)
        return values if sample.observed.resolves(self.part) else np.full_like(values, np.nan)

    @property
    def is_length(self) -> bool:
        return self.unit == "px"

    @property
    def factor(self) -> float:
        """Factor from the result of `of` to the unit for display."""
        return 100.0 if self.unit == "%" else 1.0
