"""From the values of a map to colours: transfer functions and colour maps of published figures."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from erf.errors import InputError
from erf.results.grid import Array

MAP_SCALES = ("log", "sqrt", "linear", "log1p", "power:P")
"""Transfer functions; P is an exponent."""

COLOR_MAPS = ("viridis", "magma", "gray", "RdYlGn", "coolwarm", "RdBu_r")

LOG_DECADES = 4

_LIGHT = ("RdYlGn", "coolwarm", "RdBu_r")
"""Colour maps on which a mark is black."""

Limits = tuple[float, float]


@dataclass(frozen=True)
class Coloring:
    """How values become colours; `InputError` for what is not known."""

    scale: str = "log"
    """'linear'; 'sqrt'; 'log' over four decades; 'log1p' for log10(1 + value), as RepLKNet draws it; 'power:0.2' for
    a power, as VMamba."""
    colors: str = ""
    """Colour map, one of `COLOR_MAPS`; '' for viridis, or RdBu_r where values are negative."""
    clip: Limits | None = None
    """Percentiles of the pixels below and above which all values have the same colour; None for 0 and the maximum."""
    joint: bool = False
    """Whether all maps of a picture have one scale, instead of each its own."""

    def __post_init__(self) -> None:
        if self.scale not in MAP_SCALES[:-1] and not 0 < self._exponent <= 1:
            known = ", ".join(MAP_SCALES)
            raise InputError(f"scale '{self.scale}' not known; expected one of {known}, with P above 0 and up to 1")
        if self.colors and self.colors not in COLOR_MAPS:
            raise InputError(f"colours '{self.colors}' not known; expected one of {', '.join(COLOR_MAPS)}")
        if self.clip is not None and not 0 <= self.clip[0] < self.clip[1] <= 100:
            low, high = self.clip
            raise InputError(f"percentiles {low:g} and {high:g}; expected two from 0 to 100, such as 1 and 99.5")

    @property
    def _exponent(self) -> float:
        found = re.fullmatch(r"power:(\d*\.?\d+)", self.scale)
        return float(found[1]) if found else 0.5 if self.scale == "sqrt" else 1.0 if self.scale == "linear" else 0.0

    @property
    def is_absolute(self) -> bool:
        """Whether colours depend on the unit of the values."""
        return self.scale == "log1p"

    def limits(self, values: NDArray[np.floating], signed: bool = False) -> Limits:
        """Return the magnitudes that have the first and the last colour.

        Args:
            values: All values that share the scale.
            signed: Whether they may be negative; the first colour then belongs to 0.
        """
        magnitudes, largest = np.abs(values), float(np.abs(values).max())
        if self.clip is None:
            return 0.0, largest
        low, high = (float(edge) for edge in np.percentile(magnitudes, self.clip))
        low = 0.0 if signed else low
        return (low, high) if high > low else (0.0, largest)

    def shown(self, values: NDArray[np.floating], limits: Limits) -> Array:
        """Return values on the colour scale: 0 to 1, or -1 to 1 where they are negative."""
        low, high = limits
        if not high:
            return np.zeros(values.shape)
        first, last = self._transfer(np.array([low, high]), high)
        magnitude = self._transfer(np.clip(np.abs(values).astype(np.float64), low, high), high)
        return np.asarray(np.sign(values) * (magnitude - first) / (last - first))

    def _transfer(self, magnitude: Array, top: float) -> Array:
        if self.scale == "log":
            return np.log10(np.maximum(magnitude / top, 10.0**-LOG_DECADES))
        return np.log10(1 + magnitude) if self.scale == "log1p" else magnitude**self._exponent

    def color_map(self, signed: bool) -> str:
        """Name of the colour map in matplotlib."""
        return self.colors or ("RdBu_r" if signed else "viridis")

    def mark(self, signed: bool) -> str:
        """Colour of a mark on a map."""
        return "black" if self.color_map(signed) in _LIGHT else "white"

    def describe(self) -> str:
        """The scale in words."""
        largest = "largest value of all maps" if self.joint else "map's maximum"
        of = "share of the mass per pixel, relative to the" if self.joint else "share of the"
        words = {
            "linear": f"{of} {largest}",
            "sqrt": f"square root of the {of} {largest}",
            "log": f"{of} {largest}, log scale over {LOG_DECADES} decades",
            "log1p": f"log10(1 + map), relative to that of the {largest}",
        }.get(self.scale, f"{of} {largest}, to the power of {self._exponent:g}")
        if self.clip is None:
            return words
        low, high = self.clip
        return f"{words}; from percentile {low:g} to {high:g} of the pixels"
