"""Gradient of one unit of a layer with respect to the input.

A gradient of 1 is set on all channels of the unit, zero at every other position, and back-propagated (Luo, Li,
Urtasun, Zemel. Understanding the effective receptive field in deep convolutional neural networks. NIPS 2016).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from erf.errors import LayerError, NoGradientError
from erf.network.inputs import Arrange, alone
from erf.network.layers import Layout, Unit, forward_to

T = TypeVar("T")


EDGES = "edges"


def _edges(maps: Tensor) -> Tensor:
    """Return the magnitude of the differences to the next unit below and on the right; (N, C, h, w) loses one each."""
    inner = maps[..., :-1, :-1]
    return torch.linalg.vector_norm(torch.stack([maps[..., 1:, :-1] - inner, maps[..., :-1, 1:] - inner]), dim=0)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda values: values,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "softmax": lambda values: values.softmax(1),
    EDGES: _edges,
}
"""Functions of the values (N, C, …) of a unit or window, of which the gradient is taken; `edges` of windows only."""


def window_range(unit: Unit, window: Unit) -> list[tuple[int, int]]:
    """Return the half-open ranges of a window whose middle is a unit; of an even length, the upper of both middles."""
    return [(index - length // 2, index - length // 2 + length) for index, length in zip(unit, window, strict=True)]


@dataclass(frozen=True, eq=False)
class Target:
    """A unit of a layer whose gradient is computed."""

    layer: str
    units: tuple[Unit, ...]
    """One unit for all images of a batch, or one per image."""
    layout: Layout | None = None
    """Layout of the layer's output; None for (N, C, *axes)."""
    weights: Tensor | None = None
    """(1 or N, C): output gradient of each channel; None for 1 on all of them."""
    activation: str = "none"
    """Key of `ACTIVATIONS`, applied to the channels of each unit."""
    window: Unit = ()
    """Number of units along each axis, centred on the unit, whose values are summed; () for the unit alone."""

    def map(self, output: Tensor) -> Tensor:
        """Return the layer's map (N, C, *axes)."""
        if self.layout is None and output.ndim != len(self.units[0]) + 2:
            raise LayerError(
                f"layer '{self.layer}' returns shape {tuple(output.shape)}, expected a map (N, C, H, W); give a layout"
            )
        return self.layout.as_map(output) if self.layout else output

    def values(self, output: Tensor) -> Tensor:
        """Return the values (N, C) of the unit."""
        maps = self.map(output)
        if len(self.units) == 1:
            return self._at(maps, self.units[0])
        return torch.stack([self._at(one[None], unit)[0] for one, unit in zip(maps, self.units, strict=True)])

    def _at(self, maps: Tensor, unit: Unit) -> Tensor:
        """Return the values (N, C) of one unit, or window, of maps (N, C, *axes)."""
        activate = ACTIVATIONS[self.activation]
        if not self.window:
            index: tuple[Any, ...] = (..., *unit)
            return activate(maps[index])
        last = 1 if self.activation == EDGES else 0  # differences need a unit more
        box: Any = (..., *(slice(first, stop + last) for first, stop in window_range(unit, self.window)))
        return activate(maps[box]).flatten(2).sum(2)

    def totals(self, output: Tensor) -> Tensor:
        """Return the weighted sums over channels (N,), the scalars that are differentiated."""
        values = self.values(output)
        return (values if self.weights is None else values * self.weights).sum(1)


def unit_gradient(model: nn.Module, inputs: Tensor, layer: str, unit: Unit, layout: Layout | None = None) -> Tensor:
    """Compute the gradient of one unit's sum over channels with respect to the inputs.

    The model is used as it is: put it into eval mode first, or call this within `frozen`. In eval mode the images of a
    batch do not interact, so row n is the gradient of image n alone.

    Args:
        model: the network, which takes `inputs` as its only argument.
        inputs: (N, C, H, W), or any other number of axes.
        layer: path of the module that holds the unit.
        unit: (y, x) in the layer's map, or one index per axis.
        layout: how the output is read as a map, where it is not `(N, C, *axes)`.

    Returns:
        The gradient, of the shape of `inputs`.

    Raises:
        LayerError: the layer is unknown or yields no map.
        NoGradientError: no gradient reaches the input.

    Example:
        >>> import torch, erf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 3, padding=1))
        >>> gradient = erf.unit_gradient(model, torch.zeros(1, 1, 9, 9), layer="1", unit=(4, 4))
        >>> gradient.shape, int((gradient != 0).sum())
        (torch.Size([1, 1, 9, 9]), 25)
    """
    (gradient,) = unit_gradients(model, inputs, [Target(layer, (unit,), layout)])
    return gradient


def unit_gradients(
    model: nn.Module, inputs: Tensor, targets: Sequence[Target], arrange: Arrange = alone
) -> Iterator[Tensor]:
    """Compute the gradients of several units with one forward pass, and one backward pass for each.

    Args:
        model: the network, used as it is; see `unit_gradient`.
        inputs: (N, C, H, W).
        targets: units of one or more layers.
        arrange: builds the network's arguments from the inputs.

    Yields:
        The gradient (N, C, H, W) of each target, in order.

    Raises:
        LayerError: a layer is unknown or yields no map, or a tensor was changed in place.
        NoGradientError: no gradient reaches the input.
    """

    def total(target: Target, output: Tensor) -> Tensor:
        if not output.requires_grad:
            raise NoGradientError(
                f"layer '{target.layer}' passes no gradient to the input; expected a differentiable path "
                "(look for detach(), no_grad or rounding on the way)",
                target.layer,
            )
        return target.totals(output).sum()

    with torch.enable_grad():
        source = inputs.detach().requires_grad_()
        # The network may change its input in place, which is allowed on a copy only.
        totals = _forward(model, source.clone(), targets, arrange, total)
    while totals:
        last = totals.pop(0)
        with in_place_errors():
            (gradient,) = torch.autograd.grad(last, source, retain_graph=bool(totals), materialize_grads=True)
        del last
        yield gradient


@contextmanager
def in_place_errors() -> Iterator[None]:
    """Context manager that converts autograd's error about a tensor changed in place into a `LayerError`."""
    try:
        yield
    except RuntimeError as error:
        if "inplace operation" not in str(error):
            raise
        raise LayerError(
            "a tensor that the backward pass needs was changed in place (by x += y, say, or relu(inplace=True)); use "
            "an operation that makes a new tensor"
        ) from error


@torch.no_grad()
def unit_values(model: nn.Module, inputs: Tensor, targets: Sequence[Target], arrange: Arrange = alone) -> list[Tensor]:
    """Return the values (N, C) of several units of one or more layers, from one forward pass without gradients."""
    return _forward(model, inputs.clone(), targets, arrange, lambda target, output: target.values(output).clone())


@torch.no_grad()
def strongest_units(
    model: nn.Module, inputs: Tensor, targets: Sequence[Target], arrange: Arrange = alone
) -> list[list[Unit]]:
    """Find, for each target and image, the unit with the largest weighted sum over channels.

    Args:
        model: the network, used as it is.
        inputs: (N, C, H, W).
        targets: layers, layouts and weights; their own units are ignored.
        arrange: builds the network's arguments from the inputs.

    Returns:
        The units of the N images, by target.
    """
    return _forward(
        model, inputs.clone(), targets, arrange, lambda target, output: [_largest(one) for one in _sums(target, output)]
    )


def _forward(
    model: nn.Module, inputs: Tensor, targets: Sequence[Target], arrange: Arrange, take: Callable[[Target, Tensor], T]
) -> list[T]:
    """Run one forward pass and return the results of `take` for each target and its layer's output."""

    def look(layer: str, output: Tensor) -> dict[int, T]:
        return {place: take(target, output) for place, target in enumerate(targets) if target.layer == layer}

    layers = list(dict.fromkeys(target.layer for target in targets))
    found = forward_to(model, layers, arrange(inputs), look)
    by_place = {place: value for each in found.values() for place, value in each.items()}
    return [by_place[place] for place in range(len(targets))]


def _sums(target: Target, output: Tensor) -> Tensor:
    """Return the weighted sums over channels (N, *axes)."""
    maps = ACTIVATIONS[target.activation](target.map(output))
    if target.weights is not None:
        maps = maps * target.weights.reshape(*target.weights.shape, *(1,) * (maps.ndim - 2))
    return maps.sum(1)


def _largest(sums: Tensor) -> Unit:
    return tuple(int(index) for index in torch.unravel_index(sums.argmax(), sums.shape))
