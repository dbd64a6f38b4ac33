"""Modes in which a network runs: frozen and in eval mode, in a memory layout, in reduced precision."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def reduced_precision(precision: str, device: torch.device) -> Iterator[None]:
    """Context manager that runs matrix products and convolutions in bfloat16 if that is the given precision."""
    if precision == "bfloat16":
        with torch.autocast(device.type, torch.bfloat16):
            yield
    else:
        yield


def is_permuted(data: Tensor) -> bool:
    """Whether the strides differ from those of the contiguous layout, also along dimensions of length 1.

    PyTorch treats a tensor of a single channel, or a single image, as having either layout, and decides by the strides.
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
    """Context manager that puts the model into eval mode, with parameters that require no gradient.

    Without gradients for parameters the backward pass computes half as many convolutions. Modes, flags and layouts are
    restored on exit.

    Args:
        model: the network.
        memory_format: layout of the parameters: `channels_last` for those of four dimensions, or `contiguous_format`
            for all; None leaves them.
    """
    modes = {module: module.training for module in model.modules()}
    flags = [(parameter, parameter.requires_grad, parameter.data) for parameter in model.parameters()]
    try:
        model.eval()
        for parameter, _, data in flags:
            parameter.requires_grad_(False)
            if memory_format == torch.channels_last and data.ndim == 4:
                # `contiguous` would leave the layout of single-channel weights, and so that of all later maps.
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
