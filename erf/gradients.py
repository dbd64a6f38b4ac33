"""The gradient of one unit of a layer with respect to the input.

A unit gradient is put on all channels of the unit, zero on every other position, and back-propagated (Luo, Li,
Urtasun, Zemel. Understanding the effective receptive field in deep convolutional neural networks. NIPS 2016).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from erf.errors import LayerError
from erf.layers import forward_to

Unit = tuple[int, int]
"""(y, x) in a layer's map."""


def unit_gradient(model: nn.Module, inputs: Tensor, layer: str, unit: Unit) -> Tensor:
    """Gradient (N, C, H, W) of the sum over channels of one unit with respect to inputs (N, C, H, W).

    The model is used as it is: put it into eval mode first, or within `frozen`. In eval mode the images of a batch do
    not see each other, so row n is the gradient of image n alone.
    """
    (gradient,) = unit_gradients(model, inputs, {layer: unit})
    return gradient


def unit_gradients(model: nn.Module, inputs: Tensor, units: Mapping[str, Unit]) -> Iterator[Tensor]:
    """The same for one unit of each of several layers: one forward pass, and one backward pass for each."""

    def value(layer: str, output: Tensor) -> Tensor:
        if not output.requires_grad:
            raise LayerError(
                f"layer '{layer}' passes no gradient to the input; expected a differentiable path "
                "(look for detach(), no_grad or rounding on the way)"
            )
        y, x = units[layer]
        return output[:, :, y, x].sum()

    with torch.enable_grad():
        source = inputs.detach().requires_grad_()
        values = list(forward_to(model, list(units), source, value).values())
    while values:
        (gradient,) = torch.autograd.grad(values.pop(0), source, retain_graph=bool(values))
        yield gradient


@torch.no_grad()
def unit_values(model: nn.Module, inputs: Tensor, units: Mapping[str, Unit]) -> list[Tensor]:
    """Values (N, C) of one unit of each of several layers."""
    values = forward_to(model, list(units), inputs, lambda layer, output: output[:, :, *units[layer]].clone())
    return list(values.values())


@contextmanager
def frozen(model: nn.Module, memory_format: torch.memory_format | None = None) -> Iterator[nn.Module]:
    """The model in eval mode, with parameters that need no gradient, as long as the context lasts.

    Without gradients for parameters the backward pass has half the convolutions to do. `memory_format` lays out the
    four-dimensional parameters for speed. Modes, flags and layouts are put back afterwards.
    """
    modes = {module: module.training for module in model.modules()}
    flags = [(parameter, parameter.requires_grad, parameter.data) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _, data in flags:
            parameter.requires_grad_(False)
            if memory_format is not None and data.ndim == 4:
                # Not `contiguous`, which leaves weights of a single channel as they are, and so all maps that follow.
                parameter.data = torch.empty_like(data, memory_format=memory_format).copy_(data)
        yield model
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, requires_grad, data in flags:
            parameter.data = data
            parameter.requires_grad_(requires_grad)
