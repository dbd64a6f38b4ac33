"""Arithmetic of theoretical receptive fields, in input pixels.

Pixel centres have integer coordinates, (0, 0) is the top left one. The recursion is that of Araujo, Norris, Sim.
Computing receptive fields of convolutional neural networks. Distill 2019.
"""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class AxisField:
    """What the units of a layer see along one axis.

    Unit i sees the pixels from `i * stride + start` to `i * stride + stop`, both included and not clipped to the
    image, by convolution and pooling alone; `infinite` tells that an operator such as attention lets it see them all.
    """

    stride: float = 1.0
    start: float = 0.0
    stop: float = 0.0
    infinite: bool = False

    @property
    def size(self) -> float:
        """Number of pixels that a unit sees, or infinity."""
        return math.inf if self.infinite else self.stop - self.start + 1

    @property
    def offset(self) -> float:
        """Pixel coordinate on which unit 0 is centred."""
        return (self.start + self.stop) / 2

    def center(self, index: int) -> float:
        """Pixel coordinate on which a unit is centred."""
        return index * self.stride + self.offset

    def box(self, index: int, length: int) -> tuple[int, int]:
        """Half-open range of pixels that a unit sees on an axis of the given length."""
        if self.infinite:
            return 0, length
        first, last = (math.floor(index * self.stride + edge) for edge in (self.start, self.stop))
        return max(first, 0), min(last + 1, length)

    def window(self, kernel: int, stride: int, padding: int, dilation: int) -> "AxisField":
        """The field one layer of sliding windows (convolution, pooling) further on."""
        first = self.start - padding * self.stride
        last = self.stop + (dilation * (kernel - 1) - padding) * self.stride
        return replace(self, stride=self.stride * stride, start=first, stop=last)

    def union(self, other: "AxisField") -> "AxisField":
        """The field of a unit that sees through both branches, which have the same stride."""
        return AxisField(
            self.stride,
            min(self.start, other.start),
            max(self.stop, other.stop),
            self.infinite or other.infinite,
        )


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
