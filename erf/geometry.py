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

    @property
    def stride(self) -> float:
        """Pixels from one unit to the next."""
        return self.shift / len(self.starts)

    @property
    def size(self) -> float:
        """Number of pixels that a unit sees (of several phases the most), or infinity."""
        return math.inf if self.infinite else max(self.extent(unit) for unit in range(len(self.starts)))

    @property
    def offset(self) -> float:
        """Pixel coordinate on which unit 0 is centred; of several phases the mean."""
        phases = range(len(self.starts))
        return sum(self.middle(unit) - unit * self.stride for unit in phases) / len(phases)

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

    def _seen_through(self, shift: int, sources: Sequence[Sequence[int]]) -> "AxisField":
        """The field of units, one period of them, each of which sees what its source units see."""
        spans = [[self._span(source) for source in found] for found in sources]
        starts = tuple(min(start for start, _ in found) for found in spans)
        stops = tuple(max(stop for _, stop in found) for found in spans)
        return AxisField(shift, starts, stops, self.infinite)

    def union(self, other: "AxisField") -> "AxisField":
        """The field of a unit that sees through both branches, which have the same stride."""
        period = math.lcm(len(self.starts), len(other.starts))
        spans = [(self._span(unit), other._span(unit)) for unit in range(period)]
        return AxisField(
            self.shift * period // len(self.starts),
            tuple(min(one[0], two[0]) for one, two in spans),
            tuple(max(one[1], two[1]) for one, two in spans),
            self.infinite or other.infinite,
        )

    @classmethod
    def tiling(cls, units: int, length: int) -> "AxisField":
        """Units that share an axis evenly and see all of it: what is left where a grid was made in an unknown way."""
        common = math.gcd(units, length)
        edges = [Fraction(unit * length, units) for unit in range(units // common + 1)]
        starts = tuple(math.floor(edge) for edge in edges[:-1])
        stops = tuple(math.ceil(edge) - 1 for edge in edges[1:])
        return cls(length // common, starts, stops, infinite=True)


@dataclass(frozen=True)
class ReceptiveField:
    """Theoretical receptive field of the units of a two-dimensional layer."""

    y: AxisField = AxisField()
    x: AxisField = AxisField()
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
    def infinite(self) -> bool:
        return self.y.infinite or self.x.infinite

    @property
    def size(self) -> tuple[float, float]:
        """(height, width) in pixels."""
        return (math.inf, math.inf) if self.data_dependent else (self.y.size, self.x.size)

    @property
    def stride(self) -> tuple[float, float]:
        return self.y.stride, self.x.stride

    @property
    def offset(self) -> tuple[float, float]:
        return self.y.offset, self.x.offset

    def center(self, unit: tuple[int, int]) -> tuple[float, float]:
        """(y, x) of a unit's centre in pixels."""
        return self.y.center(unit[0]), self.x.center(unit[1])

    def extent(self, unit: tuple[int, int]) -> tuple[float, float]:
        """(height, width) in pixels of what one unit sees, not clipped to the image."""
        if self.kind != "finite":
            return self.size
        return self.y.extent(unit[0]), self.x.extent(unit[1])

    def shift(self, unit: tuple[int, int]) -> tuple[float, float]:
        """(y, x) in pixels from a unit's centre to the middle of what it sees; 0 where that has no bound."""
        if self.kind != "finite":
            return 0.0, 0.0
        return self.y.middle(unit[0]) - self.y.center(unit[0]), self.x.middle(unit[1]) - self.x.center(unit[1])

    def union(self, other: "ReceptiveField") -> "ReceptiveField":
        names = dict.fromkeys(self.unbounded_by + other.unbounded_by)
        moving = self.data_dependent or other.data_dependent
        return ReceptiveField(self.y.union(other.y), self.x.union(other.x), tuple(names), moving)

    def unbounded(self, operator: str) -> "ReceptiveField":
        """The same field after an operator that may see everything."""
        names = dict.fromkeys((*self.unbounded_by, operator))
        return replace(
            self, y=replace(self.y, infinite=True), x=replace(self.x, infinite=True), unbounded_by=tuple(names)
        )
