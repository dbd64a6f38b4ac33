"""Arithmetic of theoretical receptive fields, in input pixels.

Pixel centres have integer coordinates, (0, 0) is the top left one. The recursion is that of Araujo, Norris, Sim.
Computing receptive fields of convolutional neural networks. Distill 2019.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import ArrayLike, NDArray

Spans = tuple[NDArray[np.int64], NDArray[np.int64]]
"""First and last pixels of each unit's field."""


@dataclass(frozen=True)
class AxisField:
    """Theoretical receptive field of the units of a layer along one axis.

    Unit i sees the pixels from `starts[i]` to `stops[i]`, both included and not clipped to the image, by convolution
    and pooling alone. Units are listed for one period; one period further on, fields are shifted by `shift` pixels.
    The period is 1 unless something was up-sampled: then neighbours share their source units. Where units do not
    repeat, all units of the map are listed, with their `centers`, and periods continue only beyond its ends.
    `infinite` means that an operator such as attention lets every unit see all pixels.
    """

    shift: int = 1
    """Negative where the axis runs backwards."""
    starts: tuple[int, ...] = (0,)
    stops: tuple[int, ...] = (0,)
    infinite: bool = False
    offset: float = 0.0
    """Pixel coordinate on which unit 0 is centred; of several phases the mean. Where branches meet, that of the one
    that sees least: a unit lies where its shortest way leads, as that of the shortcut of a U-Net."""
    centers: tuple[float, ...] = ()
    """Centre of each unit in pixels, where units do not repeat."""
    listed_period: int = 1
    """Units to a period beyond the ends of a map whose units do not repeat."""

    @property
    def regular(self) -> bool:
        """Whether units repeat from one period to the next."""
        return not self.centers

    @property
    def period(self) -> int:
        return len(self.starts) if self.regular else self.listed_period

    @property
    def stride(self) -> float:
        """Pixels from one unit to the next; negative where the axis runs backwards."""
        if len(self.centers) > 1:
            return float(np.median(np.diff(self.centers)))
        return self.shift / self.period

    @property
    def size(self) -> float:
        """Number of pixels that a unit sees, or infinity: the most of several phases, or of the middle of the map."""
        if self.infinite:
            return math.inf
        # At its ends, padding can wrap around.
        ends = 0 if self.regular else len(self.starts) // 4
        starts, stops = (np.asarray(each[ends : len(each) - ends]) for each in (self.starts, self.stops))
        return float((stops - starts).max() + 1)

    def center(self, index: int) -> float:
        """Pixel coordinate on which a unit is centred."""
        return float(self._centers([index])[0])

    def _centers(self, places: ArrayLike) -> NDArray[np.float64]:
        """Return the centres of several units, or of positions between them."""
        asked = np.asarray(places, float)
        if self.regular:
            return asked * self.stride + self.offset
        inside = np.clip(asked, 0, len(self.centers) - 1)
        between = np.interp(inside, np.arange(len(self.centers)), self.centers)
        return np.asarray(between + (asked - inside) * self.stride)

    def nearest(self, place: float) -> int:
        """The unit whose centre lies nearest to a pixel coordinate; it may lie outside the map."""
        if self.regular:
            return round((place - self.offset) / self.stride)
        unit = int(np.argmin(np.abs(np.asarray(self.centers) - place)))
        at_end = unit in (0, len(self.centers) - 1) and self.stride != 0
        return unit + (round((place - self.centers[unit]) / self.stride) if at_end else 0)

    def extent(self, index: int) -> float:
        """Number of pixels that one unit sees by windows alone."""
        first, last = self._span(index)
        return float(last - first + 1)

    def middle(self, index: int) -> float:
        """Pixel coordinate of the middle of what one unit sees by windows alone."""
        return sum(self._span(index)) / 2

    def _span(self, index: int) -> tuple[int, int]:
        starts, stops = self._spans(np.array([index]))
        return int(starts[0]), int(stops[0])

    def _spans(self, units: NDArray[np.int64]) -> Spans:
        """Return the fields of units, also of those beyond the ends of the map."""
        last, period = len(self.starts), self.period
        low, high = np.minimum(units, 0) // period, np.maximum(units - last + period, 0) // period
        periods = low + high
        places = units - periods * period
        starts, stops = np.asarray(self.starts), np.asarray(self.stops)
        return starts[places] + periods * self.shift, stops[places] + periods * self.shift

    def box(self, index: int, length: int) -> tuple[int, int]:
        """Half-open range of pixels that a unit sees on an axis of the given length."""
        if self.infinite:
            return 0, length
        first, last = self._span(index)
        return min(max(first, 0), length), max(min(last + 1, length), 0)

    def window(self, kernel: int, stride: int, padding: int, dilation: int, count: int | None = None) -> "AxisField":
        """The field one layer of sliding windows (convolution, pooling) further on, which has `count` units."""
        taps = dilation * np.arange(kernel) - padding
        common = math.gcd(self.period, stride)
        if count is None:
            count = (len(self.starts) + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
        units = np.arange(self.period // common if self.regular else count)
        return self._through(
            units[:, None] * stride + taps,
            units * stride + (taps[0] + taps[-1]) / 2,
            (self.period // common, self.shift * stride // common),
        )

    def transposed(
        self, kernel: int, stride: int, padding: int, dilation: int, count: int | None = None
    ) -> "AxisField":
        """The field one layer of transposed convolution further on, whose stride multiplies the units.

        Units that no tap reaches hold a bias only; they are given the field of the unit before them.
        """
        period = self.period * stride
        if count is None:
            count = (len(self.starts) - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1
        units = np.arange(period if self.regular else count)
        reached = units[:, None] + padding - dilation * np.arange(kernel)
        found = reached % stride == 0
        before = (units[:, None] + padding) // stride
        first = np.where(found, reached // stride, np.iinfo(np.int64).max).min(1, keepdims=True)
        taps = np.where(found, reached // stride, np.where(found.any(1, keepdims=True), first, before))
        middles = (taps.min(1) + taps.max(1)) / 2
        return self._through(taps, _evenly(middles, 1 / stride, stride), (period, self.shift))

    def resized(
        self, before: int, after: int, mode: str, aligned: bool = False, scale: float | None = None
    ) -> "AxisField":
        """The field after interpolation from `before` units to `after`.

        `mode` is that of PyTorch: nearest, nearest-exact, area, linear, cubic, or the last two with `-antialias`.
        `aligned` puts the first and last units of both on each other. `scale` is the factor, if it was given:
        PyTorch steps by 1 / scale then, whatever the sizes.
        """
        taps, places, ratio = _interpolation(before, after, mode, aligned, scale)
        repeats = math.lcm(ratio.numerator, self.period) // max(ratio.numerator, 1)
        period = (ratio.denominator * repeats, self.shift * ratio.numerator * repeats // self.period)
        # What lies beyond the border is replaced by the border; with both, a window is as wide as any other.
        both = np.concatenate([np.clip(taps, 0, before - 1), taps], 1)
        return self.listed(before)._through(both, places, period)

    def padded(self, before: int, after: int, mode: str, length: int) -> "AxisField":
        """The field of a map of `length` units after padding ('constant', 'reflect', 'replicate', 'circular')."""
        count = before + length + after
        units = np.arange(-before, length + after)
        if mode == "constant":
            return self.window(1, 1, before, 1, count)
        sources = units % length
        if mode == "replicate":
            sources = np.clip(units, 0, length - 1)
        elif mode == "reflect" and length > 1:
            there_and_back = units % (2 * (length - 1))
            sources = np.minimum(there_and_back, 2 * (length - 1) - there_and_back)
        # Beyond the border a mirrored unit counts as what it mirrors and as what it stands for, so that a window about
        # the border, which holds both, is as wide as any other.
        taps = sources[:, None] if mode == "circular" else np.stack([sources, units], 1)
        return self.listed(length)._through(taps, units, (self.period, self.shift))

    def picked(self, units: Sequence[int], length: int) -> "AxisField":
        """The field of units of a map of `length` that were picked by number, in this order."""
        chosen = np.asarray(units)
        steps = set(np.diff(chosen).tolist())
        step = steps.pop() if len(steps) == 1 else 1
        common = math.gcd(self.period, step)
        period = (self.period // common, self.shift * step // common) if step else (1, 0)
        return self.listed(length)._through(chosen[:, None], chosen, period)

    def listed(self, length: int) -> "AxisField":
        """Return the field with all units of a map of `length` listed one by one."""
        if not self.regular:
            return self
        units = np.arange(length)
        starts, stops = self._spans(units)
        period = (self.period, self.shift) if self.period <= length else (1, round(self.stride))
        return self._given(starts, stops, self._centers(units), period)

    def _given(
        self, starts: ArrayLike, stops: ArrayLike, centers: ArrayLike, period: tuple[int, int], infinite: bool = False
    ) -> "AxisField":
        """Units one by one, and the units and pixels to a period."""
        lists = (np.asarray(each).tolist() for each in (starts, stops, centers))
        first, last, middle = map(tuple, lists)
        return AxisField(period[1], first, last, self.infinite or infinite, middle[0], middle, period[0])

    def _through(
        self,
        sources: NDArray[np.int64],
        places: ArrayLike,
        period: tuple[int, int],
    ) -> "AxisField":
        """The field of units that see what their source units (unit, tap) see, and lie at these places between them."""
        starts, stops = self._spans(sources)
        first, last = starts.min(1), stops.max(1)
        if self.regular:
            centers = self._centers(places)
            offset = float(np.mean(centers - np.arange(len(centers)) * (period[1] / period[0])))
            return AxisField(period[1], tuple(first.tolist()), tuple(last.tolist()), self.infinite, offset)
        field = self._given(first, last, self._centers(places), period)
        return field.simplified()

    def simplified(self) -> "AxisField":
        """One period only, where all units repeat."""
        period, count = self.listed_period, len(self.centers)
        if self.regular or count < 2:
            return self
        if period >= count:
            return replace(self, listed_period=1, shift=round(self.stride))
        starts, stops = np.asarray(self.starts), np.asarray(self.stops)
        lines = np.asarray(self.centers) - np.arange(count) * (self.shift / period)
        repeats = all((each[period:] - each[:-period] == self.shift).all() for each in (starts, stops))
        if not repeats or np.ptp(lines) > 1e-6:
            return self
        return AxisField(self.shift, self.starts[:period], self.stops[:period], self.infinite, float(lines[0]))

    def union(self, other: "AxisField", length: int | None = None) -> "AxisField":
        """The field of a unit that sees through both branches, of a map of `length` units."""
        if not (self.regular and other.regular and self.stride == other.stride) and length is not None:
            return self._listed_union(other, length)
        period = math.lcm(self.period, other.period)
        units = np.arange(period)
        (first, last), (start, stop) = self._spans(units), other._spans(units)
        return AxisField(
            self.shift * period // self.period,
            tuple(np.minimum(first, start).tolist()),
            tuple(np.maximum(last, stop).tolist()),
            self.infinite or other.infinite,
            min(self, other, key=lambda field: field._widest(units)).offset,
        )

    def _listed_union(self, other: "AxisField", length: int) -> "AxisField":
        units = np.arange(length)
        one, two = self.listed(length), other.listed(length)
        (first, last), (start, stop) = one._spans(units), two._spans(units)
        nearer = min(one, two, key=lambda field: field._widest(units))
        period = (nearer.listed_period, nearer.shift)
        return nearer._given(
            np.minimum(first, start), np.maximum(last, stop), nearer.centers, period, self.infinite or other.infinite
        ).simplified()

    def _widest(self, units: NDArray[np.int64]) -> int:
        starts, stops = self._spans(units)
        return int(np.median(stops - starts)) if not self.regular else int((stops - starts).max())

    @classmethod
    def concatenated(cls, parts: Sequence[tuple["AxisField | None", int]]) -> "AxisField":
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
            lists.append(field.window(1, 1, -first, 1, count).listed(count))
        main = lists[known[0]]
        starts, stops, centers = (
            np.concatenate([getattr(each, name) for each in lists]) for name in ("starts", "stops", "centers")
        )
        is_infinite = any(each.infinite for each in lists)
        return main._given(starts, stops, centers, (main.listed_period, main.shift), is_infinite).simplified()

    def written(self, other: "AxisField", units: Sequence[int], length: int) -> "AxisField":
        """The field of a map of `length` units, after units of another one were written into some of them."""
        placed = np.asarray(units)
        one, two = self.listed(length), other.listed(len(placed))
        starts, stops = (np.array(each) for each in (one.starts, one.stops))
        starts[placed] = np.minimum(starts[placed], two.starts)
        stops[placed] = np.maximum(stops[placed], two.stops)
        period = (one.listed_period, one.shift)
        return one._given(starts, stops, one.centers, period, other.infinite).simplified()

    @classmethod
    def tiling(cls, units: int, length: int) -> "AxisField":
        """Return units that divide an axis evenly and see all of it, for a grid made by unknown operators."""
        common = math.gcd(units, length)
        edges = [Fraction(unit * length, units) for unit in range(units // common + 1)]
        starts = tuple(math.floor(edge) for edge in edges[:-1])
        stops = tuple(math.ceil(edge) - 1 for edge in edges[1:])
        # Middles of equal parts.
        return cls(length // common, starts, stops, True, (length / units - 1) / 2)

    def steps(self, pixels: int) -> int:
        """Units in a number of pixels."""
        return round(pixels / self.stride) if self.stride else 0


_NEAR = 1e-5
"""Units by which places may be off in single precision."""


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


def _evenly(places: NDArray[np.float64], step: float, period: int) -> NDArray[np.float64]:
    """Places at equal steps, which have the same mean over the first period."""
    units = np.arange(len(places))
    return np.asarray(units * step + float(np.mean((places - units * step)[:period])))
