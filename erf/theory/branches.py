"""Fields of units that see through several branches: unions, concatenations, and writes into a part of a map."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from erf.theory.axis import AxisField
from erf.theory.sampling import window


def union(field: AxisField, other: AxisField, length: int | None = None) -> AxisField:
    """The field of a unit that sees through both branches, of a map of `length` units."""
    if not (field.regular and other.regular and field.stride == other.stride) and length is not None:
        return _listed_union(field, other, length)
    period = math.lcm(field.period, other.period)
    units = np.arange(period)
    (first, last), (start, stop) = field.spans(units), other.spans(units)
    return AxisField(
        field.shift * period // field.period,
        tuple(np.minimum(first, start).tolist()),
        tuple(np.maximum(last, stop).tolist()),
        field.infinite or other.infinite,
        min(field, other, key=lambda each: _widest(each, units)).offset,
    )


def _listed_union(field: AxisField, other: AxisField, length: int) -> AxisField:
    units = np.arange(length)
    one, two = field.listed(length), other.listed(length)
    (first, last), (start, stop) = one.spans(units), two.spans(units)
    nearer = min(one, two, key=lambda each: _widest(each, units))
    period = (nearer.listed_period, nearer.shift)
    return nearer.given(
        np.minimum(first, start), np.maximum(last, stop), nearer.centers, period, field.infinite or other.infinite
    ).simplified()


def _widest(field: AxisField, units: NDArray[np.int64]) -> int:
    starts, stops = field.spans(units)
    return int(np.median(stops - starts)) if not field.regular else int((stops - starts).max())


def concatenated(parts: Sequence[tuple[AxisField | None, int]]) -> AxisField:
    """The field of parts (field, units) put one after another; None where a part comes from no pixel.

    Such a part continues the one before or after it, as padding does.
    """
    known = [number for number, (field, _) in enumerate(parts) if field is not None]
    lists: list[AxisField] = []
    for number, (_, count) in enumerate(parts):
        near = min(known, key=lambda place: abs(place - number))
        field, units = parts[near]
        assert field is not None
        first = 0 if near == number else -count if near > number else units
        lists.append(window(field, 1, 1, -first, 1, count).listed(count))
    main = lists[known[0]]
    starts, stops, centers = (
        np.concatenate([getattr(each, name) for each in lists]) for name in ("starts", "stops", "centers")
    )
    is_infinite = any(each.infinite for each in lists)
    return main.given(starts, stops, centers, (main.listed_period, main.shift), is_infinite).simplified()


def written_over(field: AxisField, other: AxisField, units: Sequence[int], length: int) -> AxisField:
    """The field of a map of `length` units, after units of another one were written into some of them."""
    placed = np.asarray(units)
    one, two = field.listed(length), other.listed(len(placed))
    starts, stops = (np.array(each) for each in (one.starts, one.stops))
    starts[placed] = np.minimum(starts[placed], two.starts)
    stops[placed] = np.maximum(stops[placed], two.stops)
    period = (one.listed_period, one.shift)
    return one.given(starts, stops, one.centers, period, other.infinite).simplified()
