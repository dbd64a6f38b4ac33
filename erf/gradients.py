"""The gradient of one unit of a layer with respect to the input.

A unit gradient is put on all channels of the unit, zero on every other position, and back-propagated (Luo, Li,
Urtasun, Zemel. Understanding the effective receptive field in deep convolutional neural networks. NIPS 2016).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from erf.errors import LayerError
from erf.layers import forward_to


def unit_gradient(model: nn.Module, inputs: Tensor, layer: str, unit: tuple[int, int]) -> Tensor:
    """Gradient (N, C, H, W) of the sum over channels of one unit with respect to inputs (N, C, H, W).

    The model is used as it is: put it into eval mode first, or within `frozen`. In eval mode the images of a batch do
    not see each other, so row n is the gradient of image n alone.
    """
    with torch.enable_grad():
        source = inputs.detach().requires_grad_()
        output = forward_to(model, layer, source)
        if not output.requires_grad:
            raise LayerError(
                f"layer '{layer}' passes no gradient to the input; expected a differentiable path "
                "(look for detach(), no_grad or rounding on the way)"
            )
        (gradient,) = torch.autograd.grad(output[:, :, unit[0], unit[1]].sum(), source)
    return gradient


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
                parameter.data = data.contiguous(memory_format=memory_format)
        yield model
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, requires_grad, data in flags:
            parameter.data = data
            parameter.requires_grad_(requires_grad)
