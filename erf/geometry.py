"""Arithmetic of theoretical receptive fields, in input pixels.

Pixel centres have integer coordinates, (0, 0) is the top left one. The recursion is that of Araujo, Norris, Sim.
Computing receptive fields of convolutional neural networks. Distill 2019.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction


@dataclass(frozen=True)
class AxisField:
    """What the units of a layer see along one axis.

    Unit i, of the first period, sees the pixels from `starts[i]` to `stops[i]`, both included and not clipped to the
    image, by convolution and pooling alone; `len(starts)` units further on, the same is seen `shift` pixels further on.
    The period is 1 unless something was up-sampled: then neighbours share the units from which they come. `infinite`
    tells that an operator such as attention lets every unit see all pixels.
    """

    shift: int = 1
    starts: tuple[int, ...] = (0,)
    stops: tuple[int, ...] = (0,)
    infinite: bool = False
    offset: float = 0.0
    """Pixel coordinate on which unit 0 is centred; of several phases the mean. Where branches meet, that of the one
    that sees least: a unit lies where its shortest way leads, as that of the shortcut of a U-Net."""

    @property
    def stride(self) -> float:
        """Pixels from one unit to the next."""
        return self.shift / len(self.starts)

    @property
    def size(self) -> float:
        """Number of pixels that a unit sees (of several phases the most), or infinity."""
        return math.inf if self.infinite else max(self.extent(unit) for unit in range(len(self.starts)))

    def center(self, index: int) -> float:
        """Pixel coordinate on which a unit is centred."""
        return index * self.stride + self.offset

    def extent(self, index: int) -> float:
        """Number of pixels that one unit sees by windows alone."""
        first, last = self._span(index)
        return float(last - first + 1)

    def middle(self, index: int) -> float:
        """Pixel coordinate of the middle of what one unit sees by windows alone."""
        return sum(self._span(index)) / 2

    def _span(self, index: int) -> tuple[int, int]:
        periods, phase = divmod(index, len(self.starts))
        return self.starts[phase] + periods * self.shift, self.stops[phase] + periods * self.shift

    def _spans(self) -> list[tuple[int, int]]:
        return [self._span(unit) for unit in range(len(self.starts))]

    def box(self, index: int, length: int) -> tuple[int, int]:
        """Half-open range of pixels that a unit sees on an axis of the given length."""
        if self.infinite:
            return 0, length
        first, last = self._span(index)
        return max(first, 0), min(last + 1, length)

    def window(self, kernel: int, stride: int, padding: int, dilation: int) -> "AxisField":
        """The field one layer of sliding windows (convolution, pooling) further on."""
        common = math.gcd(len(self.starts), stride)
        taps = [dilation * tap - padding for tap in range(kernel)]
        return self._seen_through(
            self.shift * stride // common,
            [[unit * stride + tap for tap in taps] for unit in range(len(self.starts) // common)],
        )

    def transposed(self, kernel: int, stride: int, padding: int, dilation: int) -> "AxisField":
        """The field one layer of transposed convolution further on, whose stride multiplies the units.

        Units that no tap reaches hold a bias only; they are given the field of the unit before them.
        """
        sources = []
        for unit in range(len(self.starts) * stride):
            reached = [unit + padding - dilation * tap for tap in range(kernel)]
            found = [place // stride for place in reached if place % stride == 0]
            sources.append(found or [(unit + padding) // stride])
        return self._seen_through(self.shift, sources)

    def resized(self, before: int, after: int, reach: int, aligned: bool = False) -> "AxisField":
        """The field after interpolation from `before` units to `after`.

        Each unit is made of so many (`reach`) units about the place from which it comes: 1 for the nearest, 2 for
        linear, 4 for cubic interpolation. `aligned` puts the first and last units of both on each other.
        """
        if aligned and after > 1:
            units = math.lcm(before, len(self.starts))
            places = [Fraction(unit * (before - 1), after - 1) for unit in range(after)]
        else:
            common = math.gcd(before, after)
            # As many units as make whole periods of what they come from.
            repeats = math.lcm(before // common, len(self.starts)) // (before // common)
            units, period = before // common * repeats, after // common * repeats
            middle = Fraction(1, 2) if reach > 1 else Fraction(0)
            places = [(unit + middle) * Fraction(before, after) - middle for unit in range(period)]
        below = max(reach // 2 - 1, 0)
        taps = range(-below, reach - below)
        sources = [
            [math.floor(place) + tap for tap in taps] if place.denominator > 1 else [int(place)] for place in places
        ]
        # Aligned units are not periodic: they are given one by one, and the next period lies beyond the map.
        return self._seen_through(self.shift * units // len(self.starts), sources)

    def _seen_through(self, shift: int, sources: Sequence[Sequence[int]]) -> "AxisField":
        """The field of units, one period of them, each of which sees what its source units see."""
        spans = [[self._span(source) for source in found] for found in sources]
        starts = tuple(min(start for start, _ in found) for found in spans)
        stops = tuple(max(stop for _, stop in found) for found in spans)
        centers = [(self.center(min(found)) + self.center(max(found))) / 2 for found in sources]
        stride = shift / len(sources)
        offset = sum(center - unit * stride for unit, center in enumerate(centers)) / len(sources)
        return AxisField(shift, starts, stops, self.infinite, offset)

    def union(self, other: "AxisField") -> "AxisField":
        """The field of a unit that sees through both branches, which have the same stride."""
        period = math.lcm(len(self.starts), len(other.starts))
        spans = [(self._span(unit), other._span(unit)) for unit in range(period)]
        return AxisField(
            self.shift * period // len(self.starts),
            tuple(min(one[0], two[0]) for one, two in spans),
            tuple(max(one[1], two[1]) for one, two in spans),
            self.infinite or other.infinite,
            min(self, other, key=lambda field: max(stop - start for start, stop in field._spans())).offset,
        )

    @classmethod
    def tiling(cls, units: int, length: int) -> "AxisField":
        """Units that share an axis evenly and see all of it: what is left where a grid was made in an unknown way."""
        common = math.gcd(units, length)
        edges = [Fraction(unit * length, units) for unit in range(units // common + 1)]
        starts = tuple(math.floor(edge) for edge in edges[:-1])
        stops = tuple(math.ceil(edge) - 1 for edge in edges[1:])
        # Middles of equal parts.
        return cls(length // common, starts, stops, True, (length / units - 1) / 2)


@dataclass(frozen=True)
class ReceptiveField:
    """Theoretical receptive field of the units of a layer, axis by axis; of an image first y, then x."""

    axes: tuple[AxisField, ...] = (AxisField(), AxisField())
    unbounded_by: tuple[str, ...] = ()
    """Operators because of which the field is infinite; each is global, or not known to be local."""
    data_dependent: bool = False
    """Whether the input decides where a unit looks, as with deformable convolution; then the field has no bound."""

    @property
    def kind(self) -> str:
        """'finite', 'data-dependent' (unbounded, by moving taps alone) or 'infinite'."""
        if self.infinite:
            return "infinite"
        return "data-dependent" if self.data_dependent else "finite"

    @property
    def y(self) -> AxisField:
        return self.axes[-2]

    @property
    def x(self) -> AxisField:
        return self.axes[-1]

    @property
    def infinite(self) -> bool:
        return any(axis.infinite for axis in self.axes)

    @property
    def size(self) -> tuple[float, ...]:
        """(height, width) in pixels."""
        return tuple(math.inf if self.data_dependent else axis.size for axis in self.axes)

    @property
    def stride(self) -> tuple[float, ...]:
        return tuple(axis.stride for axis in self.axes)

    @property
    def offset(self) -> tuple[float, ...]:
        return tuple(axis.offset for axis in self.axes)

    def center(self, unit: Sequence[int]) -> tuple[float, ...]:
        """(y, x) of a unit's centre in pixels."""
        return tuple(axis.center(index) for axis, index in zip(self.axes, unit, strict=True))

    def nearest(self, point: Sequence[float]) -> tuple[int, ...]:
        """The unit whose centre lies nearest to a point (y, x) in pixels; it may lie outside the map."""
        pairs = zip(self.axes, point, strict=True)
        return tuple(round((place - axis.offset) / axis.stride) for axis, place in pairs)

    def extent(self, unit: Sequence[int]) -> tuple[float, ...]:
        """(height, width) in pixels of what one unit sees, not clipped to the image."""
        if self.kind != "finite":
            return self.size
        return tuple(axis.extent(index) for axis, index in zip(self.axes, unit, strict=True))

    def shift(self, unit: Sequence[int]) -> tuple[float, ...]:
        """(y, x) in pixels from a unit's centre to the middle of what it sees; 0 where that has no bound."""
        if self.kind != "finite":
            return (0.0,) * len(self.axes)
        pairs = zip(self.axes, unit, strict=True)
        return tuple(axis.middle(index) - axis.center(index) for axis, index in pairs)

    def on(self, axis: int, field: AxisField) -> "ReceptiveField":
        """The same with another field along one axis."""
        return replace(self, axes=(*self.axes[:axis], field, *self.axes[axis + 1 :]))

    def union(self, other: "ReceptiveField") -> "ReceptiveField":
        names = dict.fromkeys(self.unbounded_by + other.unbounded_by)
        moving = self.data_dependent or other.data_dependent
        axes = tuple(ours.union(theirs) for ours, theirs in zip(self.axes, other.axes, strict=True))
        return ReceptiveField(axes, tuple(names), moving)

    def unbounded(self, *operators: str) -> "ReceptiveField":
        """The same field after operators that may see everything."""
        names = tuple(dict.fromkeys((*self.unbounded_by, *operators)))
        axes = tuple(replace(axis, infinite=True) for axis in self.axes)
        return replace(self, axes=axes, unbounded_by=names)
