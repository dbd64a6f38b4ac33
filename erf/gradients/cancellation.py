"""Channels that cancel: units whose sum over channels is constant, so that its gradient is rounding alone.

This is so behind a layer norm with its initial weights, which makes the sum zero, and behind a softmax, which makes
it 1.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from erf.gradients.autograd import Target, unit_gradients, unit_values
from erf.network.inputs import Arrange, alone

CANCELLED = (
    "the channels of a unit sum to a constant, as behind an untrained layer norm, so that the gradient of their sum is "
    "rounding"
)
"""What is wrong with such a layer, in words."""

_CHANGE = 1e-3
"""Change of a sum over channels, relative to that of absolute values, from which it is not constant."""

_LAST_PLACES, _COARSEST = 64.0, 2.0**-5
"""Units in the last place below which the gradient is rounding, relative to that with random weights; at most 3 %."""


def channels_cancel(
    model: nn.Module, inputs: Tensor, targets: Sequence[Target], arrange: Arrange = alone
) -> list[bool]:
    """Whether the gradient of each unit's sum over channels is rounding, compared with that of a randomly weighted sum.

    Units whose sum is another for the turned inputs are not compared, which would take two backward passes for each.

    Args:
        model: the network, used as it is.
        inputs: (1, C, H, W).
        targets: the units, without weights.
        arrange: builds the network's arguments from the inputs.

    Raises:
        LayerError: a layer is unknown, yields no map, or passes no gradient to the input.
    """
    here, there = (unit_values(model, each, targets, arrange) for each in (inputs, inputs.flip((-2, -1))))
    return [
        one.shape[1] > 1 and _is_constant(one, other) and _is_rounding(model, inputs, target, one.shape[1], arrange)
        for target, one, other in zip(targets, here, there, strict=True)
    ]


def _is_constant(one: Tensor, other: Tensor) -> bool:
    """Whether the values (1, C) of a unit for two inputs may have the same sum."""
    if not one.is_floating_point():  # such as the indices of a maximum, which have no gradient
        return False
    change = max(_CHANGE, 4 * torch.finfo(one.dtype).eps)
    return bool((one.sum() - other.sum()).abs() <= change * (one.abs().sum() + other.abs().sum()))


def _is_rounding(model: nn.Module, inputs: Tensor, target: Target, channels: int, arrange: Arrange) -> bool:
    # Normal weights, not signs: those of two channels may be equal.
    weights = torch.randn((1, channels), generator=torch.Generator().manual_seed(0)).to(inputs)
    weighted, plain = (_norm(model, inputs, one, arrange) for one in (replace(target, weights=weights), target))
    share = min(_LAST_PLACES * torch.finfo(inputs.dtype).eps, _COARSEST)
    return 0 < weighted < torch.inf and plain <= share * weighted


def _norm(model: nn.Module, inputs: Tensor, target: Target, arrange: Arrange) -> float:
    # One pass for each target: a graph that is kept for a second backward pass takes more memory.
    (gradient,) = unit_gradients(model, inputs, [target], arrange)
    return float(torch.linalg.vector_norm(gradient.cpu(), dtype=torch.float64))
