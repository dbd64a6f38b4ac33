"""The gradient of one unit of a layer with respect to the input.

A unit gradient is put on all channels of the unit, zero on every other position, and back-propagated (Luo, Li,
Urtasun, Zemel. Understanding the effective receptive field in deep convolutional neural networks. NIPS 2016).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from erf.errors import LayerError, NoGradientError
from erf.layers import Layout, Unit, forward_to

T = TypeVar("T")

Arrange = Callable[[Tensor], tuple[Tensor, ...]]
"""Makes the arguments of a network from inputs (N, C, H, W)."""


def alone(inputs: Tensor) -> tuple[Tensor, ...]:
    """Inputs as the one argument of a network."""
    return (inputs,)


@dataclass(frozen=True, eq=False)
class Target:
    """A unit of a layer, of which the gradient is asked."""

    layer: str
    units: tuple[Unit, ...]
    """One for all images of a batch, or one for each."""
    layout: Layout | None = None
    """How the layer's output is read as a map; None for (N, C, *axes)."""
    weights: Tensor | None = None
    """(1 or N, C): the gradient that is put on each channel, where it is not 1."""

    def map(self, output: Tensor) -> Tensor:
        """The layer's map (N, C, *axes)."""
        if self.layout is None and output.ndim != len(self.units[0]) + 2:
            raise LayerError(
                f"layer '{self.layer}' returns shape {tuple(output.shape)}, expected a map (N, C, H, W); give a layout"
            )
        return self.layout.as_map(output) if self.layout else output

    def values(self, output: Tensor) -> Tensor:
        """Values (N, C) of the unit."""
        maps = self.map(output)
        if len(self.units) == 1:
            return _at(maps, self.units[0])
        return torch.stack([_at(one, unit) for one, unit in zip(maps, self.units, strict=True)])

    def totals(self, output: Tensor) -> Tensor:
        """(N,), the sums over channels whose gradients are asked for."""
        values = self.values(output)
        return (values if self.weights is None else values * self.weights).sum(1)


def _at(maps: Tensor, unit: Unit) -> Tensor:
    """Values of one unit of maps (…, *axes)."""
    index: tuple[Any, ...] = (..., *unit)
    return maps[index]


def unit_gradient(model: nn.Module, inputs: Tensor, layer: str, unit: Unit, layout: Layout | None = None) -> Tensor:
    """Gradient (N, C, H, W) of the sum over channels of one unit with respect to inputs (N, C, H, W).

    Inputs and maps can have any number of axes. `layout` is needed where the layer's output is not (N, C, *axes).
    The model is used as it is: put it into eval mode first, or within `frozen`. In eval mode the images of a batch do
    not see each other, so row n is the gradient of image n alone.
    """
    (gradient,) = unit_gradients(model, inputs, [Target(layer, (unit,), layout)])
    return gradient


def unit_gradients(
    model: nn.Module, inputs: Tensor, targets: Sequence[Target], arrange: Arrange = alone
) -> Iterator[Tensor]:
    """The same for several units of one or more layers: one forward pass, and one backward pass for each."""

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
        # A copy, which the network may change in place.
        totals = _forward(model, source.clone(), targets, arrange, total)
    while totals:
        last = totals.pop(0)
        with in_place_errors():
            (gradient,) = torch.autograd.grad(last, source, retain_graph=bool(totals), materialize_grads=True)
        del last
        yield gradient


@contextmanager
def in_place_errors() -> Iterator[None]:
    """Turns what autograd says of a tensor that was changed in place into one clear line."""
    try:
        yield
    except RuntimeError as error:
        if "inplace operation" not in str(error):
            raise
        raise LayerError(
            "a tensor that the backward pass needs was changed in place (by x += y, say, or relu(inplace=True)); use "
            "an operation that makes a new tensor"
        ) from error


@contextmanager
def reduced_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Within, matrix products and convolutions are in bfloat16, if that is the precision; else nothing changes."""
    if precision == "bfloat16":
        with torch.autocast(device.type, torch.bfloat16):
            yield
    else:
        yield


@torch.no_grad()
def unit_values(model: nn.Module, inputs: Tensor, targets: Sequence[Target], arrange: Arrange = alone) -> list[Tensor]:
    """Values (N, C) of several units of one or more layers."""
    return _forward(model, inputs.clone(), targets, arrange, lambda target, output: target.values(output).clone())


@torch.no_grad()
def strongest_units(
    model: nn.Module, inputs: Tensor, targets: Sequence[Target], arrange: Arrange = alone
) -> list[list[Unit]]:
    """By target, the unit of each image whose weighted sum over channels is largest; targets' own units are ignored."""
    return _forward(
        model, inputs.clone(), targets, arrange, lambda target, output: [_largest(one) for one in _sums(target, output)]
    )


def _forward(
    model: nn.Module, inputs: Tensor, targets: Sequence[Target], arrange: Arrange, take: Callable[[Target, Tensor], T]
) -> list[T]:
    """What `take` makes of each target and its layer's output, from one forward pass."""

    def look(layer: str, output: Tensor) -> dict[int, T]:
        return {place: take(target, output) for place, target in enumerate(targets) if target.layer == layer}

    layers = list(dict.fromkeys(target.layer for target in targets))
    found = forward_to(model, layers, arrange(inputs), look)
    by_place = {place: value for each in found.values() for place, value in each.items()}
    return [by_place[place] for place in range(len(targets))]


def _sums(target: Target, output: Tensor) -> Tensor:
    """Weighted sums over channels (N, *axes)."""
    maps = target.map(output)
    if target.weights is not None:
        maps = maps * target.weights.reshape(*target.weights.shape, *(1,) * (maps.ndim - 2))
    return maps.sum(1)


def _largest(sums: Tensor) -> Unit:
    return tuple(int(index) for index in torch.unravel_index(sums.argmax(), sums.shape))


def is_permuted(data: Tensor) -> bool:
    """Whether strides are others than those of contiguous layout, also along dimensions of length 1.

    PyTorch takes a tensor of a single channel, or a single image, for one of either layout, and chooses by the strides.
    """
    expected = 1
    for length, stride in zip(
        reversed(data.shape), reversed(data.stride() if data.layout == torch.strided else ()), strict=False
    ):
        if stride != expected:
            return True
        expected *= max(length, 1)
    return False


@contextmanager
def frozen(model: nn.Module, memory_format: torch.memory_format | None = None) -> Iterator[nn.Module]:
    """The model in eval mode, with parameters that need no gradient, as long as the context lasts.

    Without gradients for parameters the backward pass has half the convolutions to do. `memory_format` lays out the
    parameters: those of four dimensions channels last, or all of them contiguous. Modes, flags and layouts are put back
    afterwards.
    """
    modes = {module: module.training for module in model.modules()}
    flags = [(parameter, parameter.requires_grad, parameter.data) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _, data in flags:
            parameter.requires_grad_(False)
            if memory_format == torch.channels_last and data.ndim == 4:
                # Not `contiguous`, which leaves weights of a single channel as they are, and so all maps that follow.
                parameter.data = torch.empty_like(data, memory_format=memory_format).copy_(data)
            elif memory_format == torch.contiguous_format and is_permuted(data):
                parameter.data = torch.empty_like(data, memory_format=memory_format).copy_(data)
        yield model
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, requires_grad, data in flags:
            parameter.data = data
            parameter.requires_grad_(requires_grad)
