"""Input crops: the smallest part of an image that a network with a finite receptive field needs.

Every activation that a unit depends on depends itself on nothing outside the unit's theoretical receptive field. So the
gradient on a crop that contains this field equals that on the whole image, provided that strides fall on the same
pixels and that nothing in the network depends on the position in the image. The first follows from geometry. The second
is tested: the unit must have the same value in the crop as in the image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn

from erf.box import Box
from erf.errors import ErfError
from erf.gradients.autograd import Target, unit_values
from erf.network.layers import Unit
from erf.network.modes import frozen
from erf.theory.axis import AxisField
from erf.theory.tracing import Trace, blank, trace

_WORTHWHILE = 0.9
"""Share of the image's pixels above which a crop saves nothing."""

_ROUNDING = 1e-3
"""Tolerance relative to the largest value: single precision differs by as much between convolution algorithms."""

LayerUnit = tuple[str, Unit]
"""(layer, unit): a layer's name and the indices of a unit in its map."""


@dataclass(frozen=True)
class Crop:
    """Part of the image that is passed through the network, with the targets in its maps."""

    box: Box[int]
    targets: tuple[Target, ...]
    """Targets in the order of the requested units."""

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.box.shape

    def share(self, size: Sequence[int]) -> float:
        """Return the share of the pixels of an image of `size` (height, width)."""
        return self.shape[0] * self.shape[1] / (size[0] * size[1])

    def cut(self, inputs: Tensor) -> Tensor:
        """Crop inputs (..., H, W) to the crop; a view."""
        return inputs[..., *self.box.slices]


def whole(size: Sequence[int], traces: Mapping[str, Trace], units: Sequence[LayerUnit]) -> Crop:
    """Return the crop that is the whole image of `size` (height, width)."""
    targets = tuple(Target(layer, (unit,), traces[layer].layout) for layer, unit in units)
    return Crop(Box.whole(size), targets)


def find_crop(
    model: nn.Module, traces: Mapping[str, Trace], units: Sequence[LayerUnit], input_shape: Sequence[int]
) -> Crop:
    """Find the smallest crop that contains the fields of all units and keeps the strides in phase.

    Args:
        model: the network.
        traces: trace of each layer for inputs of `input_shape`.
        units: the (layer, unit) pairs.
        input_shape: (C, H, W) of an image.

    Returns:
        The crop; the whole image where no smaller crop gives the same values or saves enough.
    """
    return find_crops(model, traces, [units], input_shape)[0]


def find_crops(
    model: nn.Module, traces: Mapping[str, Trace], groups: Sequence[Sequence[LayerUnit]], input_shape: Sequence[int]
) -> list[Crop]:
    """Find the crop of each of several groups of units, all verified against one pass over the image.

    Arguments are those of `find_crop`.
    """
    trial = _ValueTest(model, whole(input_shape[1:], traces, [each for group in groups for each in group]), input_shape)
    return [_find(trial, traces, units, input_shape) for units in groups]


def _find(
    trial: "_ValueTest", traces: Mapping[str, Trace], units: Sequence[LayerUnit], input_shape: Sequence[int]
) -> Crop:
    size = input_shape[1:]
    frame = whole(size, traces, units)
    if any(traces[layer].field.kind != "finite" for layer, _ in units):
        return frame
    box = _aligned_box(traces, units, size)
    shape = (input_shape[0], *box.shape)
    if not box.shape[0] * box.shape[1]:  # the unit sees padding only
        return frame
    if shape[1] * shape[2] > _WORTHWHILE * size[0] * size[1]:
        return frame
    try:
        inside = trace(trial.model, list(dict.fromkeys(layer for layer, _ in units)), shape)
    except ErfError:
        return frame
    moved = [(layer, _moved(traces[layer], unit, box[:2])) for layer, unit in units]
    targets = tuple(Target(layer, (unit,), inside[layer].layout) for layer, unit in moved)
    crop = Crop(box, targets)
    kept = all(
        _keeps_field(inside[layer], unit, traces[layer], before, box[:2])
        for (layer, unit), (_, before) in zip(moved, units, strict=True)
    )
    return crop if kept and trial.keeps_values(crop, units) else frame


def _aligned_box(traces: Mapping[str, Trace], units: Sequence[LayerUnit], size: Sequence[int]) -> Box[int]:
    """Return the smallest box of an image of (height, width) that holds fields of units and keeps strides in phase."""
    along = [
        stretch(
            [traces[layer].field.axes[axis].box(unit[axis], size[axis]) for layer, unit in units],
            max(traced.alignment[axis] for traced in traces.values()),
            size[axis],
        )
        for axis in range(2)
    ]
    return Box.of_axes(*along)


def crop_of_unit(traced: Trace, layer: str, unit: Unit, size: Sequence[int]) -> Crop | None:
    """Return the smallest aligned crop that contains the field of a unit, by geometry alone.

    Whether the unit has the same value in it remains to be tested, as by `find_crop`.

    Args:
        traced: trace of the layer for the whole image.
        layer: path of the layer.
        unit: indices in its map.
        size: (height, width) of the image.

    Returns:
        The crop; None where the field has no bound, lies outside the image, or the map is read from tokens, whose
        number depends on the size.
    """
    if traced.field.kind != "finite" or traced.layout.is_tokens or not traced.layout.places or len(unit) != 2:
        return None
    box = _aligned_box({layer: traced}, [(layer, unit)], size)
    if not box.shape[0] * box.shape[1]:
        return None
    return Crop(box, (Target(layer, (_moved(traced, unit, box[:2]),), traced.layout),))


def are_alike(values: Tensor, expected: Tensor) -> bool:
    """Whether the values (N, C) of a unit, in a crop and in the image, differ by no more than rounding."""
    return bool((values - expected).abs().max() <= _ROUNDING * expected.abs().max())


def stretch(boxes: list[tuple[int, int]], alignment: int, length: int) -> tuple[int, int]:
    """Return the smallest aligned range that contains some half-open ranges along an axis of `length` pixels."""
    first, last = min(start for start, _ in boxes), max(stop for _, stop in boxes)
    return first // alignment * alignment, min(length, -(-last // alignment) * alignment)


def _moved(traced: Trace, unit: Unit, by: tuple[int, int]) -> Unit:
    pairs = zip(unit, traced.field.axes, by, strict=True)
    return tuple(index - axis.steps(pixels) for index, axis, pixels in pairs)


def _keeps_field(inside: Trace, unit: Unit, outside: Trace, before: Unit, start: tuple[int, int]) -> bool:
    """Whether a unit sees the same pixels in the crop as in the image, and the layer has the same layout.

    In a crop of a single row or column it may be ambiguous which dimension is which.
    """
    is_alike = inside.field.kind == "finite" and _reading(inside) == _reading(outside)
    return is_alike and all(
        0 <= unit[axis] < inside.feature_shape[1 + axis]
        and _span(inside.field.axes[axis], unit[axis], start[axis]) == _span(outside.field.axes[axis], before[axis], 0)
        for axis in range(2)
    )


def _reading(traced: Trace) -> tuple[tuple[int, ...], int, int]:
    return traced.layout.places, traced.layout.before, traced.feature_shape[0]


def _span(field: AxisField, unit: int, start: int) -> tuple[float, float]:
    return field.middle(unit) + start, field.extent(unit)


class _ValueTest:
    """Test on noise whether units have the same values in a crop as in the image."""

    def __init__(self, model: nn.Module, frame: Crop, input_shape: Sequence[int]) -> None:
        self.model = model
        self._frame = frame
        self._shape = input_shape

    @cached_property
    def _noise(self) -> Tensor:
        noise = torch.randn((1, *self._shape), generator=torch.Generator().manual_seed(0))
        return noise.to(blank(self.model, ()))

    @cached_property
    def _values_in_image(self) -> dict[LayerUnit, Tensor]:
        with frozen(self.model):
            values = unit_values(self.model, self._noise, self._frame.targets)
        pairs = zip(self._frame.targets, values, strict=True)
        return {(target.layer, target.units[0]): value for target, value in pairs}

    def keeps_values(self, crop: Crop, units: Sequence[LayerUnit]) -> bool:
        with frozen(self.model):
            values = unit_values(self.model, crop.cut(self._noise), crop.targets)
        pairs = ((value, self._values_in_image[each]) for value, each in zip(values, units, strict=True))
        return all(are_alike(value, other) for value, other in pairs)
