"""The part of the input that a unit sees: what a network of finite field has to be given, and no more.

Whatever the unit depends on, depends itself on nothing outside the unit's theoretical receptive field. So the gradient
on a cut-out that holds this field is that on the whole image, provided that strides fall on the same pixels and that
nothing in the network asks where in the image it is. The first follows from geometry. The second is tried out: the unit
must have the same value in the cut-out as in the image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from erf.errors import ErfError
from erf.geometry import AxisField
from erf.gradients import Target, frozen, unit_values
from erf.layers import Unit
from erf.tracing import Trace, blank, trace

_WORTHWHILE = 0.9
"""Share of the image's pixels from which on a window gains nothing."""

_ROUNDING = 1e-3
"""Of the largest value: what single precision may differ by when convolutions take another way."""

Spot = tuple[str, Unit]
"""A unit of a layer."""


@dataclass(frozen=True)
class Window:
    """Half-open ranges of rows and columns, and the units within the maps of what they cut out."""

    top: int
    bottom: int
    left: int
    right: int
    targets: tuple[Target, ...]
    """In the order of the units that were asked for."""

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.bottom - self.top, self.right - self.left

    @property
    def part(self) -> tuple[int, int, int, int]:
        """(top, bottom, left, right)."""
        return self.top, self.bottom, self.left, self.right

    def share(self, size: Sequence[int]) -> float:
        """Of the pixels of an image of (height, width)."""
        return self.shape[0] * self.shape[1] / (size[0] * size[1])

    def cut(self, inputs: Tensor) -> Tensor:
        """The window of inputs (..., H, W)."""
        return inputs[..., self.top : self.bottom, self.left : self.right]


def whole(size: Sequence[int], traces: Mapping[str, Trace], spots: Sequence[Spot]) -> Window:
    """The window that is the image of (height, width)."""
    targets = tuple(Target(layer, (unit,), traces[layer].layout) for layer, unit in spots)
    return Window(0, size[0], 0, size[1], targets)


def find_window(
    model: nn.Module, traces: Mapping[str, Trace], spots: Sequence[Spot], input_shape: Sequence[int]
) -> Window:
    """The smallest window with the fields of all units that keeps the strides in step; the image where there is none.

    `traces` are those of an input of `input_shape`, (C, H, W).
    """
    return find_windows(model, traces, [spots], input_shape)[0]


def find_windows(
    model: nn.Module, traces: Mapping[str, Trace], groups: Sequence[Sequence[Spot]], input_shape: Sequence[int]
) -> list[Window]:
    """The same for each of several groups of units, which are tried out against one pass over the image."""
    trial = _Trial(model, whole(input_shape[1:], traces, [spot for group in groups for spot in group]), input_shape)
    return [_find(trial, traces, spots, input_shape) for spots in groups]


def _find(trial: "_Trial", traces: Mapping[str, Trace], spots: Sequence[Spot], input_shape: Sequence[int]) -> Window:
    size = input_shape[1:]
    everything = whole(size, traces, spots)
    if any(traces[layer].field.kind != "finite" for layer, _ in spots):
        return everything
    along = [
        stretch(
            [traces[layer].field.axes[place].box(unit[place], size[place]) for layer, unit in spots],
            max(traced.alignment[place] for traced in traces.values()),
            size[place],
        )
        for place in range(2)
    ]
    (top, bottom), (left, right) = along
    shape = (input_shape[0], bottom - top, right - left)
    if shape[1] * shape[2] > _WORTHWHILE * size[0] * size[1]:
        return everything
    try:
        inside = trace(trial.model, list(dict.fromkeys(layer for layer, _ in spots)), shape)
    except ErfError:
        return everything
    moved = [(layer, _moved(traces[layer], unit, (top, left))) for layer, unit in spots]
    targets = tuple(Target(layer, (unit,), inside[layer].layout) for layer, unit in moved)
    window = Window(top, bottom, left, right, targets)
    kept = all(
        _keeps_field(inside[layer], unit, traces[layer], before, (top, left))
        for (layer, unit), (_, before) in zip(moved, spots, strict=True)
    )
    return window if kept and trial.keeps_values(window, spots) else everything


def stretch(boxes: list[tuple[int, int]], alignment: int, length: int) -> tuple[int, int]:
    """The aligned range that holds some ranges of an axis."""
    first, last = min(start for start, _ in boxes), max(stop for _, stop in boxes)
    return first // alignment * alignment, min(length, -(-last // alignment) * alignment)


def _moved(traced: Trace, unit: Unit, by: tuple[int, int]) -> Unit:
    pairs = zip(unit, traced.field.axes, by, strict=True)
    return tuple(index - axis.steps(pixels) for index, axis, pixels in pairs)


def _keeps_field(inside: Trace, unit: Unit, outside: Trace, before: Unit, start: tuple[int, int]) -> bool:
    """Whether a unit sees the same pixels in the window as in the image, and the layer is read in the same way.

    In a window of a single row or column it may not be clear which dimension is which.
    """
    is_alike = inside.field.kind == "finite" and _reading(inside) == _reading(outside)
    return is_alike and all(
        0 <= unit[place] < inside.feature_shape[1 + place]
        and _span(inside.field.axes[place], unit[place], start[place])
        == _span(outside.field.axes[place], before[place], 0)
        for place in range(2)
    )


def _reading(traced: Trace) -> tuple[tuple[int, ...], int, int]:
    return traced.layout.places, traced.layout.before, traced.feature_shape[0]


def _span(field: AxisField, unit: int, start: int) -> tuple[float, float]:
    return field.middle(unit) + start, field.extent(unit)


class _Trial:
    """Whether units have the same values in a window as in the image, tried on noise."""

    def __init__(self, model: nn.Module, everything: Window, input_shape: Sequence[int]) -> None:
        self.model = model
        self._everything = everything
        self._shape = input_shape

    @cached_property
    def _noise(self) -> Tensor:
        noise = torch.randn((1, *self._shape), generator=torch.Generator().manual_seed(0))
        return noise.to(blank(self.model, ()))

    @cached_property
    def _there(self) -> dict[Spot, Tensor]:
        with frozen(self.model):
            values = unit_values(self.model, self._noise, self._everything.targets)
        pairs = zip(self._everything.targets, values, strict=True)
        return {(target.layer, target.units[0]): value for target, value in pairs}

    def keeps_values(self, window: Window, spots: Sequence[Spot]) -> bool:
        with frozen(self.model):
            here = unit_values(self.model, window.cut(self._noise), window.targets)
        pairs = ((found, self._there[spot]) for found, spot in zip(here, spots, strict=True))
        return all(bool((found - value).abs().max() <= _ROUNDING * value.abs().max()) for found, value in pairs)
