"""Fields of units that take values of units before them: windows, transposed windows, padding, selection."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from erf.theory.axis import AxisField


def window(
    field: AxisField, kernel: int, stride: int, padding: int, dilation: int, count: int | None = None
) -> AxisField:
    """The field one layer of sliding windows (convolution, pooling) further on, which has `count` units."""
    taps = dilation * np.arange(kernel) - padding
    common = math.gcd(field.period, stride)
    if count is None:
        count = (len(field.starts) + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    units = np.arange(field.period // common if field.regular else count)
    return field.through(
        units[:, None] * stride + taps,
        units * stride + (taps[0] + taps[-1]) / 2,
        (field.period // common, field.shift * stride // common),
    )


def transposed(
    field: AxisField, kernel: int, stride: int, padding: int, dilation: int, count: int | None = None
) -> AxisField:
    """The field one layer of transposed convolution further on, whose stride multiplies the units.

    Units that no tap reaches hold a bias only; they are given the field of the unit before them.
    """
    period = field.period * stride
    if count is None:
        count = (len(field.starts) - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1
    units = np.arange(period if field.regular else count)
    reached = units[:, None] + padding - dilation * np.arange(kernel)
    found = reached % stride == 0
    before = (units[:, None] + padding) // stride
    first = np.where(found, reached // stride, np.iinfo(np.int64).max).min(1, keepdims=True)
    taps = np.where(found, reached // stride, np.where(found.any(1, keepdims=True), first, before))
    middles = (taps.min(1) + taps.max(1)) / 2
    return field.through(taps, _evenly(middles, 1 / stride, stride), (period, field.shift))


def padded(field: AxisField, before: int, after: int, mode: str, length: int) -> AxisField:
    """The field of a map of `length` units after padding ('constant', 'reflect', 'replicate', 'circular')."""
    count = before + length + after
    units = np.arange(-before, length + after)
    if mode == "constant":
        return window(field, 1, 1, before, 1, count)
    sources = units % length
    if mode == "replicate":
        sources = np.clip(units, 0, length - 1)
    elif mode == "reflect" and length > 1:
        there_and_back = units % (2 * (length - 1))
        sources = np.minimum(there_and_back, 2 * (length - 1) - there_and_back)
    # Beyond the border a mirrored unit counts as what it mirrors and as what it stands for, so that a window about
    # the border, which holds both, is as wide as any other.
    taps = sources[:, None] if mode == "circular" else np.stack([sources, units], 1)
    return field.listed(length).through(taps, units, (field.period, field.shift))


def selected(field: AxisField, units: Sequence[int], length: int) -> AxisField:
    """The field of units of a map of `length` that were picked by number, in this order."""
    chosen = np.asarray(units)
    steps = set(np.diff(chosen).tolist())
    step = steps.pop() if len(steps) == 1 else 1
    common = math.gcd(field.period, step)
    period = (field.period // common, field.shift * step // common) if step else (1, 0)
    return field.listed(length).through(chosen[:, None], chosen, period)


def _evenly(places: NDArray[np.float64], step: float, period: int) -> NDArray[np.float64]:
    """Places at equal steps, which have the same mean over the first period."""
    units = np.arange(len(places))
    return np.asarray(units * step + float(np.mean((places - units * step)[:period])))
