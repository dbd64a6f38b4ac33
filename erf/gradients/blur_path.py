"""Gradient integrated along a path of blurs, the attribution of local attribution maps.

Gu, Dong. Interpreting super-resolution networks with local attribution maps. CVPR 2021, arXiv 2011.11036: from a
blurred image to the image itself, by Gaussians whose width falls to 0. At each step the gradient of the target is
multiplied by the change of the image, and the products are averaged.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from erf.errors import InputError
from erf.gradients.autograd import Target, unit_gradients
from erf.network.inputs import Arrange

_NARROWEST = 1e-5
"""Added to the width of a Gaussian, which must not be 0."""


def gaussian_kernel(side: int, sigma: float) -> Tensor:
    """Return a normalised Gaussian (side, side) in float64."""
    places = torch.arange(side, dtype=torch.float64) - side // 2
    weights = torch.exp(-(places**2) / (2 * (sigma + _NARROWEST) ** 2))
    kernel = weights[:, None] * weights
    return kernel / kernel.sum()


def integrate(
    model: nn.Module,
    inputs: Tensor,
    targets: Sequence[Target],
    arrange: Arrange,
    *,
    sigma: float = 1.2,
    steps: int = 50,
    side: int = 9,
) -> Iterator[Tensor]:
    """Integrate the gradient along the path.

    Args:
        model: the network.
        inputs: (N, C, H, W).
        targets: units or windows.
        arrange: builds the network's arguments from the inputs.
        sigma: standard deviation of the widest Gaussian, in pixels.
        steps: number of steps.
        side: side of the kernels in pixels, an odd number.

    Yields:
        The attribution (N, C, H, W) to each target.

    Raises:
        InputError: an option cannot be used.
    """
    if steps < 1 or side < 1 or side % 2 == 0 or not sigma > 0 or side // 2 >= min(inputs.shape[-2:]):
        raise InputError(
            f"path of blurs with sigma={sigma:g}, steps={steps}, side={side} for an image of "
            f"{'x'.join(map(str, inputs.shape[-2:]))}; expected positive numbers, and an odd side below twice the image"
        )
    kernels = [gaussian_kernel(side, sigma * (1 - step / steps)) for step in range(steps + 1)]
    totals = [torch.zeros_like(inputs) for _ in targets]
    for before, after in pairwise(kernels):
        change = _filtered(inputs, (after - before) * steps)
        gradients = unit_gradients(model, _filtered(inputs, after), targets, arrange)
        totals = [total + gradient * change for total, gradient in zip(totals, gradients, strict=True)]
    yield from (total / steps for total in totals)


def _filtered(inputs: Tensor, kernel: Tensor) -> Tensor:
    """Filter each channel of inputs (N, C, H, W), mirrored at the border without doubling it."""
    margin, channels = len(kernel) // 2, inputs.shape[1]
    padded = functional.pad(inputs, (margin,) * 4, mode="reflect")
    weights = kernel.to(inputs).expand(channels, 1, -1, -1)
    return functional.conv2d(padded, weights, groups=channels)
