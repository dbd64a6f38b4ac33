"""Backward passes for input gradients only, faster and with less memory than the library's.

Strided convolutions with few input channels, such as the stem of most networks, are computed by phases: with a stride
s, every s-th pixel of the input gradient is one phase. Each is an ordinary convolution of the output's gradient with
every s-th tap of the flipped kernel, so that all of them are one convolution onto s² times as many channels, which are
then permuted to pixels. With very few channels, neighbouring pixels of a row are computed together, as more channels.
It is the same sum as in the library's routine, which is slow where there is a single input channel: on a CPU this takes
a third of the time. The forward pass is the library's.

Batch normalisation in eval mode multiplies by a constant, so that its input need not be kept. For max pooling the
indices of the maxima are enough: its input, in most networks the largest map of all, is freed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_FEW = 4
"""Input channels up to which phases are faster."""

_FULL = 8
"""Output channels of a convolution below which a CPU leaves vector lanes unused."""


class _Phased(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.stride, ctx.padding, ctx.size = stride, padding, inputs.shape[-2:]
        return functional.conv2d(inputs, weight, bias, stride, padding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (weight,) = ctx.saved_tensors
        return input_gradient(gradient, weight, ctx.stride, ctx.padding, ctx.size), None, None, None, None


def input_gradient(
    gradient: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Compute the input gradient of a strided convolution by phases.

    Args:
        gradient: gradient (N, K, h, w) of the outputs.
        weight: (K, C, kh, kw).
        stride: stride along both axes.
        padding: zeros added on each side along (y, x).
        size: (H, W) of the inputs.

    Returns:
        The gradient (N, C, H, W).
    """
    blocks = (1, max(1, _FULL // (weight.shape[1] * stride**2)))
    taps = [-(-length // stride) for length in weight.shape[2:]]
    # The last phases may begin where the output has ended.
    steps = [-(-(length + pad) // (stride * block)) for length, pad, block in zip(size, padding, blocks, strict=True)]
    ahead = [step * block - length for step, block, length in zip(steps, blocks, gradient.shape[2:], strict=True)]
    around = [
        tap - 1 + max(0, -(-(beyond - tap + 1) // block)) * block
        for tap, beyond, block in zip(taps, ahead, blocks, strict=True)
    ]
    first = [(pad - tap + 1) // block for pad, tap, block in zip(around, taps, blocks, strict=True)]
    kernel = _phases(weight, stride, blocks[1])
    made = functional.conv2d(gradient, kernel.flatten(0, 2), stride=blocks, padding=around)
    made = made[..., first[0] : first[0] + steps[0], first[1] : first[1] + steps[1]]
    dealt = made.unflatten(1, kernel.shape[:3]).permute(0, 1, 4, 2, 5, 3).flatten(4, 5).flatten(2, 3)
    return dealt[..., padding[0] : padding[0] + size[0], padding[1] : padding[1] + size[1]]


def _phases(weight: Tensor, stride: int, block: int) -> Tensor:
    """Return kernels (C, phases of a column, pixels of a row computed together, K, taps, taps) of the gradient."""
    taps = [-(-length // stride) for length in weight.shape[2:]]
    missing = [count * stride - length for count, length in zip(taps, weight.shape[2:], strict=True)]
    phases = (
        functional.pad(weight, (0, missing[1], 0, missing[0]))
        .unflatten(3, (taps[1], stride))
        .unflatten(2, (taps[0], stride))  # (K, C, tap y, phase y, tap x, phase x)
        .permute(1, 3, 5, 0, 2, 4)
        .flip(-2, -1)
    )
    moved = [functional.pad(phases, (step, block - 1 - step)) for step in range(block)]
    return torch.stack(moved, 2).flatten(2, 3)


def _suits(module: nn.Module) -> bool:
    return (
        type(module) is nn.Conv2d
        and module.stride[0] == module.stride[1] > 1
        and module.in_channels <= _FEW
        and module.groups == 1
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
        and min(module.kernel_size) >= module.stride[0]
    )


def _convolve(module: Any, inputs: Tensor) -> Tensor:
    padding = module.padding[0], module.padding[-1]
    return _Phased.apply(inputs, module.weight, module.bias, module.stride[0], padding)


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        ctx.save_for_backward(scale)
        return torch.addcmul(shift, inputs, scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient * ctx.saved_tensors[0], None, None


def _is_constant(module: nn.Module) -> bool:
    return type(module) is nn.BatchNorm2d and not module.training and module.running_mean is not None


def _normalise(module: Any, inputs: Tensor) -> Tensor:
    scale = torch.rsqrt(module.running_var + module.eps)
    if module.affine:
        scale = scale * module.weight
    shift = -module.running_mean * scale
    if module.affine:
        shift = shift + module.bias
    return _Scaled.apply(inputs, scale[:, None, None], shift[:, None, None])


class _Pooled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, options: tuple[Any, ...]) -> Tensor:
        pooled, places = functional.max_pool2d_with_indices(inputs, *options)
        ctx.save_for_backward(places)
        ctx.options, ctx.shape, ctx.layout = options, inputs.shape, _layout(inputs)
        return pooled

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        # The library needs the input as an argument but reads its shape only: this memory is never touched.
        like = torch.empty(ctx.shape, dtype=gradient.dtype, device=gradient.device, memory_format=ctx.layout)
        (places,) = ctx.saved_tensors
        dealt: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(gradient, like, *ctx.options, places)
        return dealt, None


def _pair(length: int | tuple[int, int]) -> list[int]:
    return [length, length] if isinstance(length, int) else [*length]


def _layout(maps: Tensor) -> torch.memory_format:
    is_last = maps.ndim == 4 and maps.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_last else torch.contiguous_format


def _is_maximum(module: nn.Module) -> bool:
    return type(module) is nn.MaxPool2d and not module.return_indices


def _pool(module: Any, inputs: Tensor) -> Tensor:
    lengths = map(_pair, (module.kernel_size, module.stride, module.padding, module.dilation))
    pooled: Tensor = _Pooled.apply(inputs, (*lengths, module.ceil_mode))
    return pooled


@contextmanager
def input_gradients_only(model: nn.Module, phases: bool = True) -> Iterator[None]:
    """Context manager that runs convolutions, normalisations and max poolings with these backward passes.

    Args:
        model: a frozen network.
        phases: whether to compute strided convolutions by phases; on a GPU the library's are as fast.
    """
    ways: dict[nn.Module, Callable[[Any, Tensor], Tensor]] = {}
    for module in model.modules():
        if "forward" not in vars(module):
            if phases and _suits(module):
                ways[module] = _convolve
            elif _is_constant(module):
                ways[module] = _normalise
            elif _is_maximum(module):
                ways[module] = _pool
    try:
        for module, way in ways.items():
            module.forward = partial(way, module)
        yield
    finally:
        for module in ways:
            del module.forward
