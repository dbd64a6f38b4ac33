"""Arithmetic of theoretical receptive fields, in input pixels.

Pixel centres have integer coordinates, (0, 0) is the top left one. The recursion is that of Araujo, Norris, Sim.
Computing receptive fields of convolutional neural networks. Distill 2019.
"""

import math
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
        return float(self.centers_at([index])[0])

    def centers_at(self, places: ArrayLike) -> NDArray[np.float64]:
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
        starts, stops = self.spans(np.array([index]))
        return int(starts[0]), int(stops[0])

    def spans(self, units: NDArray[np.int64]) -> Spans:
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

    def listed(self, length: int) -> "AxisField":
        """Return the field with all units of a map of `length` listed one by one."""
        if not self.regular:
            return self
        units = np.arange(length)
        starts, stops = self.spans(units)
        period = (self.period, self.shift) if self.period <= length else (1, round(self.stride))
        return self.given(starts, stops, self.centers_at(units), period)

    def given(
        self, starts: ArrayLike, stops: ArrayLike, centers: ArrayLike, period: tuple[int, int], infinite: bool = False
    ) -> "AxisField":
        """Units one by one, and the units and pixels to a period."""
        lists = (np.asarray(each).tolist() for each in (starts, stops, centers))
        first, last, middle = map(tuple, lists)
        return AxisField(period[1], first, last, self.infinite or infinite, middle[0], middle, period[0])

    def through(
        self,
        sources: NDArray[np.int64],
        places: ArrayLike,
        period: tuple[int, int],
    ) -> "AxisField":
        """The field of units that see what their source units (unit, tap) see, and lie at these places between them."""
        starts, stops = self.spans(sources)
        first, last = starts.min(1), stops.max(1)
        if self.regular:
            centers = self.centers_at(places)
            offset = float(np.mean(centers - np.arange(len(centers)) * (period[1] / period[0])))
            return AxisField(period[1], tuple(first.tolist()), tuple(last.tolist()), self.infinite, offset)
        field = self.given(first, last, self.centers_at(places), period)
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

    def steps(self, pixels: int) -> int:
        """Units in a number of pixels."""
        return round(pixels / self.stride) if self.stride else 0


def tiling(units: int, length: int) -> AxisField:
    """Return units that divide an axis evenly and see all of it, for a grid made by unknown operators."""
    common = math.gcd(units, length)
    edges = [Fraction(unit * length, units) for unit in range(units // common + 1)]
    starts = tuple(math.floor(edge) for edge in edges[:-1])
    stops = tuple(math.ceil(edge) - 1 for edge in edges[1:])
    # Middles of equal parts.
    return AxisField(length // common, starts, stops, True, (length / units - 1) / 2)
