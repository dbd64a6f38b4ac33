"""The part of the input that a unit sees: what a network of finite field has to be given, and no more.

Whatever the unit depends on, depends itself on nothing outside the unit's theoretical receptive field. So the gradient
on a cut-out that holds this field is that on the whole image, provided that strides fall on the same pixels and that
nothing in the network asks where in the image it is. The first follows from geometry. The second is tried out: the unit
must have the same value in the cut-out as in the image.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from erf.errors import ErfError
from erf.geometry import AxisField
from erf.gradients import Unit, frozen, unit_values
from erf.tracing import Trace, trace

_WORTHWHILE = 0.9
"""Share of the image's pixels from which on a window gains nothing."""

_ROUNDING = 1e-3
"""Of the largest value: what single precision may differ by when convolutions take another way."""


@dataclass(frozen=True)
class Window:
    """Half-open ranges of rows and columns, and the units within the maps of what they cut out."""

    top: int
    bottom: int
    left: int
    right: int
    units: Mapping[str, Unit]
    """By layer."""

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.bottom - self.top, self.right - self.left

    @property
    def part(self) -> tuple[int, int, int, int]:
        """(top, bottom, left, right)."""
        return self.top, self.bottom, self.left, self.right

    def share(self, size: tuple[int, int]) -> float:
        """Of the pixels of an image of (height, width)."""
        return self.shape[0] * self.shape[1] / (size[0] * size[1])

    def cut(self, inputs: Tensor) -> Tensor:
        """The window of inputs (..., H, W)."""
        return inputs[..., self.top : self.bottom, self.left : self.right]


def whole(size: tuple[int, int], units: Mapping[str, Unit]) -> Window:
    """The window that is the image of (height, width)."""
    return Window(0, size[0], 0, size[1], units)


def find_window(
    model: nn.Module, traces: Mapping[str, Trace], units: Mapping[str, Unit], input_shape: tuple[int, int, int]
) -> Window:
    """The smallest window with the fields of all units that keeps the strides in step; the image where there is none.

    `traces` are those of an input of `input_shape`, (C, H, W).
    """
    size = input_shape[1:]
    everything = whole(size, units)
    if any(traced.field.kind != "finite" for traced in traces.values()):
        return everything
    along = [
        _stretch(
            [getattr(traces[layer].field, axis).box(unit[place], size[place]) for layer, unit in units.items()],
            max(traced.alignment[place] for traced in traces.values()),
            size[place],
        )
        for place, axis in enumerate("yx")
    ]
    (top, bottom), (left, right) = along
    moved = {layer: _moved(traces[layer], unit, (top, left)) for layer, unit in units.items()}
    window = Window(top, bottom, left, right, moved)
    if window.share(size) > _WORTHWHILE:
        return everything
    if not _keeps_fields(model, window, traces, units, input_shape):
        return everything
    return window if _keeps_values(model, window, units, input_shape) else everything


def _stretch(boxes: list[tuple[int, int]], alignment: int, length: int) -> tuple[int, int]:
    """The aligned range that holds some ranges of an axis."""
    first, last = min(start for start, _ in boxes), max(stop for _, stop in boxes)
    return first // alignment * alignment, min(length, -(-last // alignment) * alignment)


def _moved(traced: Trace, unit: Unit, by: tuple[int, int]) -> Unit:
    def units(field: AxisField, pixels: int) -> int:
        return pixels * len(field.starts) // field.shift

    return unit[0] - units(traced.field.y, by[0]), unit[1] - units(traced.field.x, by[1])


def _keeps_fields(
    model: nn.Module,
    window: Window,
    traces: Mapping[str, Trace],
    units: Mapping[str, Unit],
    input_shape: tuple[int, int, int],
) -> bool:
    """Whether every unit sees the same pixels in the window as in the image."""
    try:
        inside = trace(model, list(units), (input_shape[0], *window.shape))
    except ErfError:
        return False
    return all(
        inside[layer].field.kind == "finite"
        and all(
            0 <= window.units[layer][place] < inside[layer].feature_shape[1 + place]
            and _span(getattr(inside[layer].field, axis), window.units[layer][place], start)
            == _span(getattr(traces[layer].field, axis), units[layer][place], 0)
            for place, (axis, start) in enumerate((("y", window.top), ("x", window.left)))
        )
        for layer in units
    )


def _span(field: AxisField, unit: int, start: int) -> tuple[float, float]:
    return field.middle(unit) + start, field.extent(unit)


def _keeps_values(
    model: nn.Module, window: Window, units: Mapping[str, Unit], input_shape: tuple[int, int, int]
) -> bool:
    """Whether the units have the same values in the window as in the image, tried on noise."""
    parameter = next(model.parameters(), torch.empty(0))
    noise = torch.randn((1, *input_shape), generator=torch.Generator().manual_seed(0))
    inputs = noise.to(parameter.device, parameter.dtype)
    with frozen(model):
        there, here = unit_values(model, inputs, units), unit_values(model, window.cut(inputs), window.units)
    return all(
        bool((found - value).abs().max() <= _ROUNDING * value.abs().max())
        for found, value in zip(here, there, strict=True)
    )
