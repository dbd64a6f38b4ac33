"""Count the parameters and multiply-adds of a network from shapes alone."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

_aten = torch.ops.aten

_CONVOLUTIONS = (_aten.convolution, _aten._convolution)
_TRANSFORMS = (_aten._fft_r2c, _aten._fft_c2r, _aten._fft_c2c)
_NORMS = (
    _aten.native_batch_norm,
    _aten._native_batch_norm_legit_no_training,
    _aten.cudnn_batch_norm,
    _aten._batch_norm_no_update,
)


@dataclass(frozen=True)
class Count:
    """Parameters, and operations of one forward pass on one image in eval mode."""

    parameters: int
    convolutions: int
    """Multiply-adds of convolutions."""
    products: int
    """Multiply-adds of matrix products: linear layers, attention, learned transforms."""
    transforms: int
    """N log2 N for each Fourier transform of N real values."""
    norms: int
    """Two operations per value that a batch norm scales and shifts."""
    conv_and_norm_parameters: int
    """Parameters of convolutions and batch norms alone, as reported by tools that count only these two modules."""

    @property
    def multiply_adds(self) -> int:
        """Sum over convolutions, matrix products and Fourier transforms."""
        return self.convolutions + self.products + self.transforms


def count(build: Callable[[], nn.Module], input_shape: tuple[int, ...]) -> Count:
    """Count the parameters and operations of a network for one input image.

    Counted are the operations that PyTorch's flop counter knows, halved to multiply-adds, and the Fourier transforms
    and batch norms described in `Count`; pointwise operations and pooling are not counted.

    Args:
        build: function that returns the network.
        input_shape: (C, H, W) of the input.
    """
    model = build().eval().to("meta")
    image = torch.empty(1, *input_shape, device="meta")
    extra = dict.fromkeys(_TRANSFORMS, _transform_flops) | dict.fromkeys(_NORMS, _norm_flops)
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=extra) as counter:
        model(image)
    flops = {operator: total // 2 for operator, total in counter.get_flop_counts()["Global"].items()}

    def total(operators: tuple[Any, ...]) -> int:
        return sum(flops.pop(operator, 0) for operator in operators)

    convolutions, transforms, norms = total(_CONVOLUTIONS), total(_TRANSFORMS), total(_NORMS)
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)
    counted = (module for module in model.modules() if isinstance(module, kinds))
    return Count(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        convolutions=convolutions,
        products=sum(flops.values()),
        transforms=transforms,
        norms=norms,
        conv_and_norm_parameters=sum(parameter.numel() for module in counted for parameter in module.parameters()),
    )


def _transform_flops(shape: torch.Size, dim: list[int], *args: Any, out_shape: torch.Size, **kwargs: Any) -> int:
    """Return 2 N log2 N, with N the number of real values of each map; a complex value counts as two."""
    full = max(shape, out_shape, key=math.prod)
    values = math.prod(full[axis] for axis in dim)
    return round(2 * math.prod(full) * math.log2(values))


def _norm_flops(shape: torch.Size, *args: Any, **kwargs: Any) -> int:
    return 2 * 2 * math.prod(shape)
