"""Theoretical receptive field of the units of a layer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from erf.theory.axis import AxisField
from erf.theory.branches import union


@dataclass(frozen=True)
class ReceptiveField:
    """Theoretical receptive field of the units of a layer, axis by axis; of an image first y, then x.

    Example:
        >>> import torch, erf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 3, padding=1))
        >>> field = erf.receptive_field(model, "0", size=(64, 48)).trace.field
        >>> field.kind, field.nearest((7.2, 3.6))
        ('finite', (7, 4))
    """

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
        """Pixels from one unit to the next, in whichever direction the axis runs."""
        return tuple(abs(axis.stride) for axis in self.axes)

    @property
    def offset(self) -> tuple[float, ...]:
        return tuple(axis.offset for axis in self.axes)

    def center(self, unit: Sequence[int]) -> tuple[float, ...]:
        """(y, x) of a unit's centre in pixels."""
        return tuple(axis.center(index) for axis, index in zip(self.axes, unit, strict=True))

    def nearest(self, point: Sequence[float]) -> tuple[int, ...]:
        """The unit whose centre lies nearest to a point (y, x) in pixels; it may lie outside the map."""
        pairs = zip(self.axes, point, strict=True)
        return tuple(axis.nearest(place) for axis, place in pairs)

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
        """Return a copy with another field along one axis."""
        return replace(self, axes=(*self.axes[:axis], field, *self.axes[axis + 1 :]))

    def union(self, other: "ReceptiveField", grid: Sequence[int]) -> "ReceptiveField":
        """The field of units, of a map of `grid` units, that see through both branches."""
        names = dict.fromkeys(self.unbounded_by + other.unbounded_by)
        moving = self.data_dependent or other.data_dependent
        axes = tuple(union(one, two, size) for one, two, size in zip(self.axes, other.axes, grid, strict=True))
        return ReceptiveField(axes, tuple(names), moving)

    def unbounded(self, *operators: str) -> "ReceptiveField":
        """Return the field after global operators, whose names are added."""
        names = tuple(dict.fromkeys((*self.unbounded_by, *operators)))
        axes = tuple(replace(axis, infinite=True) for axis in self.axes)
        return replace(self, axes=axes, unbounded_by=names)
