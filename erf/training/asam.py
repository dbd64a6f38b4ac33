"""Adaptive sharpness-aware minimisation.

Paper: Kwon, Kim, Park, Choi. ASAM. ICML 2021 (arXiv 2102.11600), algorithm 1 with the authors' settings: the operator
|w| + eta for weights, the identity for all other parameters, eta = 0.01.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

ETA = 0.01


@contextmanager
def at_sharpest(model: nn.Module, rho: float, eta: float = ETA) -> Iterator[None]:
    """Perturb the parameters in the direction in which the loss rises most, within the context.

    On entry gradients are cleared; within, batch norms do not update their running statistics. On exit the parameters
    are restored and keep the gradients computed at the perturbed point, for use by any optimiser.

    Args:
        model: the network, with gradients of the loss at its current parameters.
        rho: radius of the perturbation, relative to the size of the weights.
        eta: constant of the scaling operator |w| + eta.
    """
    parameters = [(name, one) for name, one in model.named_parameters() if one.grad is not None]
    before = [parameter.detach().clone() for _, parameter in parameters]
    with torch.no_grad():
        scales = [_scale(name, parameter, eta) for name, parameter in parameters]
        scaled = [scale * _gradient(parameter) for scale, (_, parameter) in zip(scales, parameters, strict=True)]
        norm = torch.stack([gradient.norm() for gradient in scaled]).norm() + 1e-16
        for scale, gradient, (_, parameter) in zip(scales, scaled, parameters, strict=True):
            parameter.add_(scale * gradient * (rho / norm))
    model.zero_grad()
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    momenta = [module.momentum for module in norms]
    try:
        for module in norms:
            module.momentum = 0.0
        yield
    finally:
        for module, momentum in zip(norms, momenta, strict=True):
            module.momentum = momentum
        with torch.no_grad():
            for old, (_, parameter) in zip(before, parameters, strict=True):
                parameter.copy_(old)


def _scale(name: str, parameter: Tensor, eta: float) -> Tensor:
    return parameter.abs() + eta if "weight" in name else torch.ones_like(parameter)


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
