"""Comparison of gradients that makes sure that they are more than rounding errors.

After a norm layer the channels of a unit may cancel. The rest of their sum is rounding error: two correct computations
then differ by 100 %, or agree by chance on some processor. An expected gradient therefore has to be far above its
rounding error before anything is compared with it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from erf.results import Statistics

MARGIN = 10
"""Minimal ratio of the allowed difference to rounding error, and of the expected values to the allowed difference."""

STEP = 2.0**-36
"""Relative perturbation of inputs and parameters: far above the rounding of float64, too small to switch ReLUs."""

DIFFERENCE = 1e-6
"""Step of the finite difference along one direction."""


@dataclass(frozen=True)
class Reference:
    """Expected values, and the largest rounding error of any of them."""

    values: np.ndarray
    rounding: float

    def map(self, change: Callable[[np.ndarray], np.ndarray]) -> "Reference":
        """Apply a function that does not amplify errors, such as a sum of absolute values over few channels."""
        return Reference(change(self.values), self.rounding)


def plain_gradient(
    model: nn.Module, inputs: Tensor, terms: Callable[[nn.Module, Tensor], Tensor], precision: type = np.float64
) -> Reference:
    """Compute the gradient of a sum of terms with respect to the inputs, with PyTorch's autograd in float64.

    PyTorch's gradient is verified along one direction by a finite difference. The effect of rounding is measured by
    random relative perturbations (STEP) of inputs, parameters, and the weight of each term.

    Args:
        model: the network.
        inputs: its input (N, C, ...).
        terms: computes the terms of the sum, the values of a unit's channels, from (model, inputs).
        precision: precision whose rounding error is estimated.
    """
    inputs = inputs.detach().double()
    generator = torch.Generator().manual_seed(0)

    def noise(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, dtype=tensor.dtype, generator=generator)

    def moved(tensor: Tensor) -> Tensor:
        return tensor * (1 + STEP * noise(tensor))

    with _in_double_precision(model) as change:
        total, expected = _gradient(model, inputs, terms, torch.ones_like)
        way = noise(inputs)
        with torch.no_grad():
            slope = (float(terms(model, inputs + DIFFERENCE * way).sum()) - total) / DIFFERENCE
        change(moved)
        _, other = _gradient(model, moved(inputs), terms, lambda summed: moved(torch.ones_like(summed)))
    # The slope along a random direction is about the gradient's length; kinks and curvature change it by far less.
    length = float(np.linalg.norm(expected))
    rounded = MARGIN * float(np.finfo(np.float64).eps) * (abs(total) + 1) / DIFFERENCE
    off = abs(slope - float((expected * way.numpy()).sum()))
    assert off < 0.05 * length + rounded, f"the library's gradient is off by {off / length:.2g} of its length"
    return Reference(expected, float(np.abs(other - expected).max() / STEP * np.finfo(precision).eps))


def _gradient(
    model: nn.Module, inputs: Tensor, terms: Callable[..., Tensor], weigh: Callable[..., Tensor]
) -> tuple[float, np.ndarray]:
    source = inputs.clone().requires_grad_()
    summed = terms(model, source)
    return float(summed.detach().sum()), torch.autograd.grad(summed, source, weigh(summed))[0].numpy()


@contextmanager
def _in_double_precision(model: nn.Module) -> Iterator[Callable[[Callable[[Tensor], Tensor]], None]]:
    """Convert a network to float64 without parameter gradients, and restore it at the end.

    Yields a function that applies a change to all parameters.
    """
    own = [(parameter, parameter.data, parameter.requires_grad) for parameter in model.parameters()]
    dtype = own[0][1].dtype if own else torch.float64

    def change(by: Callable[[Tensor], Tensor]) -> None:
        for parameter in model.parameters():
            parameter.data = by(parameter.data)

    try:
        model.double().requires_grad_(False)
        yield change
    finally:
        model.to(dtype)
        for parameter, data, wanted in own:
            parameter.data = data
            parameter.requires_grad_(wanted)


def assert_gradients_agree(
    found: ArrayLike | Tensor, expected: ArrayLike | Tensor | Reference, rtol: float, rounding: float | None = None
) -> None:
    """Assert that gradients differ by at most `rtol` of the largest expected value, and that this is meaningful.

    Args:
        found: computed gradient; if its precision is lower, each value may also differ by one unit in the last place.
        expected: expected gradient of the same shape.
        rtol: allowed difference, relative to the largest expected absolute value.
        rounding: absolute rounding error, which must be far below the allowed difference; default: that of the
            reference, or of sums of terms of about 1 in the precision of `expected`.
    """
    reference = expected if isinstance(expected, Reference) else Reference(_array(expected), 0)
    found, wanted = _array(found), reference.values
    if rounding is None:
        rounding = reference.rounding or float(np.finfo(wanted.dtype).eps)
    assert found.shape == wanted.shape, f"shapes {found.shape} and {wanted.shape}"
    assert wanted.size, "nothing to compare: no values"
    assert np.isfinite(wanted).all(), "nothing to compare: the expected gradient is not finite"
    largest = float(np.abs(wanted).max())
    assert rtol * MARGIN <= 1, f"a difference of {rtol:g} of the largest value says nothing"
    assert rtol * largest >= MARGIN * rounding, (
        f"nothing to compare: {rtol:g} of the largest expected value, {largest:.3g}, is about what rounding does "
        f"({rounding:.3g}); choose one channel, or the layer before the norm, or float64"
    )
    allowed = rtol * largest + np.finfo(found.dtype).eps * np.abs(wanted)
    off = np.abs(found.astype(np.float64) - wanted)
    assert (off <= allowed).all(), (
        f"{np.count_nonzero(~(off <= allowed))} of {off.size} values differ, by up to {np.nanmax(off) / largest:.3g} "
        f"of the largest, {largest:.3g}; allowed {rtol:g}"
    )


def assert_statistics_agree(
    found: Statistics, maps: ArrayLike | Reference, rtol: float, rounding: float | None = None
) -> None:
    """Assert that mean, variance and curves equal those of maps (image, y, x), within `rtol` of their largest value."""
    reference = maps if isinstance(maps, Reference) else Reference(_array(maps), rounding or 0)
    values = reference.values
    assert found.count == len(values)
    rounding = reference.rounding or float(np.finfo(values.dtype).eps)
    mean = values.mean(0)
    assert_gradients_agree(found.mean, mean, rtol, rounding)
    assert_gradients_agree(found.across_rows, mean.sum(0), rtol, rounding * mean.shape[0])
    assert_gradients_agree(found.across_columns, mean.sum(1), rtol, rounding * mean.shape[1])
    if len(values) > 1:
        # The error of x squared is 2 x times the error of x.
        assert_gradients_agree(found.variance, values.var(0, ddof=1), rtol, 2 * rounding * float(np.abs(values).max()))


def _array(values: Any) -> np.ndarray:
    return values.detach().numpy() if isinstance(values, Tensor) else np.asarray(values)
