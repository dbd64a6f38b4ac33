"""Fields of units that are interpolated between units before them."""

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from erf.theory.axis import AxisField

_NEAR = 1e-5
"""Units by which places may be off in single precision."""


def interpolated(
    field: AxisField, before: int, after: int, mode: str, aligned: bool = False, scale: float | None = None
) -> AxisField:
    """The field after interpolation from `before` units to `after`.

    `mode` is that of PyTorch: nearest, nearest-exact, area, linear, cubic, or the last two with `-antialias`.
    `aligned` puts the first and last units of both on each other. `scale` is the factor, if it was given:
    PyTorch steps by 1 / scale then, whatever the sizes.
    """
    taps, places, ratio = _interpolation(before, after, mode, aligned, scale)
    repeats = math.lcm(ratio.numerator, field.period) // max(ratio.numerator, 1)
    period = (ratio.denominator * repeats, field.shift * ratio.numerator * repeats // field.period)
    # What lies beyond the border is replaced by the border; with both, a window is as wide as any other.
    both = np.concatenate([np.clip(taps, 0, before - 1), taps], 1)
    return field.listed(before).through(both, places, period)


def _interpolation(
    before: int, after: int, mode: str, aligned: bool, scale: float | None
) -> tuple[NDArray[np.int64], NDArray[np.float64], Fraction]:
    """Source units (unit, tap), places between source units, and how many of them a unit advances."""
    units = np.arange(after)
    kind, _, smooth = mode.partition("-")
    if aligned:
        ratio = Fraction(before - 1, max(after - 1, 1))
    else:
        ratio = Fraction(1 / scale).limit_denominator(10000) if scale else Fraction(before, after)
    step = 1 / scale if scale and not aligned else float(ratio)
    places = np.asarray(units * step if aligned else (units + 0.5) * step - 0.5, np.float64)
    if kind == "area":
        first, last = units * before // after, -(-(units + 1) * before // after) - 1
        return _between(first, last), places, ratio
    if kind == "nearest":
        middle = 0.5 if smooth else 0.0
        # In single precision, as PyTorch does, and exactly: where they differ, processors may too.
        single = np.floor((units.astype(np.float32) + np.float32(middle)) * np.float32(step))
        taps = np.stack([single, np.floor((units + middle) * step)], 1).astype(np.int64)
        phases = np.arange(ratio.denominator)
        shift = float(np.mean(np.floor((phases + middle) * float(ratio) + 1e-9) - phases * float(ratio)))
        return taps, np.asarray(units * step + shift), ratio
    reach = {"linear": 1, "cubic": 2}[kind]
    if smooth:
        reached = reach * max(step, 1.0)
        first, last = (np.floor(places + 1 + side * (reached + _NEAR)).astype(np.int64) for side in (-1, 1))
        return np.clip(_between(first, last - 1), 0, before - 1), places, ratio
    exact = (step * 1024).is_integer()
    near = 0.0 if exact else _NEAR * (1 + abs(step))
    first, last = np.floor(places - near).astype(np.int64), np.ceil(places + near).astype(np.int64)
    between = first < last
    return _between(first - between * (reach - 1), last + between * (reach - 1)), places, ratio


def _between(first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.int64]:
    """List all numbers from first to last, by unit; shorter ranges are padded with their last number."""
    return np.minimum(first[:, None] + np.arange((last - first).max() + 1), last[:, None])
