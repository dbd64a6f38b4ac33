"""Fields that the explorer shows: the receptive field of a unit, and the projective field of a pixel, in one image."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from erf.box import Box
from erf.network.layers import Unit

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Place:
    """What is asked for: a unit of a layer, or the pixel (y, x) nearest to it, in one image of one network."""

    network: int
    image: int
    layer: str
    channel: int | str = "all"
    definition: str = "abs"
    unit: Unit | None = None
    pixel: tuple[float, float] | None = None
    part: int = 0
    """Input of the network, where it takes several."""


def padded(map_: Array, box: Sequence[float], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return a map (h, w), which covers a box of the input, on the whole input of (height, width)."""
    top, left, bottom, right = (int(edge) for edge in box)
    height, width = size
    return np.pad(map_.astype(np.float32), ((top, height - bottom), (left, width - right)))


@dataclass(frozen=True, kw_only=True)
class Field:
    """A map over the image, or over the units of a layer."""

    place: Place
    kind: str
    """'field' of a unit or 'projective' field of a pixel."""
    map: Array
    """(h, w) within `box`, under the definition."""
    box: Box[float]
    """Part of the input that the map covers, in pixels; outside of it the map of a unit is zero."""
    size: tuple[int, int]
    """(height, width) of the input."""
    unit: Unit = ()
    center: tuple[float, float] = (0.0, 0.0)
    theory: Box[int] | None = None
    """Theoretical field inside the image; None where it is infinite."""
    way: str = ""
    """How it was computed, in words."""
    seconds: float = 0.0
    id: str = ""

    @cached_property
    def _limits(self) -> tuple[float, float]:
        return float(self.map.min(initial=0)), float(self.map.max(initial=0))

    @property
    def largest(self) -> float:
        """Largest magnitude of the map; NaN where a value is."""
        low, high = self._limits
        return max(-low, high) if not math.isnan(low) else low

    @property
    def is_signed(self) -> bool:
        return self._limits[0] < 0

    @property
    def bytes(self) -> int:
        return self.map.nbytes

    def whole(self) -> NDArray[np.float32]:
        """Return the map of a unit on the whole input."""
        return padded(self.map, self.box, self.size)


@dataclass
class FieldStore:
    """Fields that were computed, by id: the last ones, and those that are kept."""

    most: int = 12
    """Number of fields that are not kept."""
    most_kept: int = 24
    _fields: dict[str, Field] = field(default_factory=dict)
    _kept: set[str] = field(default_factory=set)
    _count: int = 0

    def add(self, found: Field) -> None:
        self._fields[found.id] = found
        passing = [name for name in self._fields if name not in self._kept]
        for name in passing[: -self.most]:
            del self._fields[name]

    def next_id(self) -> str:
        self._count += 1
        return f"f{self._count}"

    def get(self, name: str) -> Field | None:
        return self._fields.get(name)

    def keep(self, name: str, kept: bool) -> bool:
        """Keep a field, or no longer; return False where there is no such field, or no room."""
        if name not in self._fields or (kept and name not in self._kept and len(self._kept) >= self.most_kept):
            return False
        (self._kept.add if kept else self._kept.discard)(name)
        return True
