"""Every registered network's pass on a device that is not the CPU, without having one.

Tensors on the meta device have a shape and no values; an operator that meets one of them and one of the CPU raises. So
a mask, a position table or a projection that is made on the CPU in the middle of a pass is found.
"""

import pytest
import torch
from torch import nn

from erf.gradients.autograd import Target, unit_gradients
from erf.gradients.backward import input_gradients_only
from erf.gradients.units import center_unit
from erf.models import create_model, list_models, model_card
from erf.network.modes import frozen
from erf.theory.tracing import trace
from tests.models.test_registry import small_size

DEVICE = torch.device("meta")


def meta_gradient(model: nn.Module, target: Target, shape: tuple[int, ...]) -> torch.Tensor:
    """The gradient of a unit as the engine computes it, on DEVICE."""
    with frozen(model, torch.channels_last), input_gradients_only(model):
        (gradient,) = unit_gradients(model, torch.empty(2, *shape, device=DEVICE), [target])
    return gradient


@pytest.mark.parametrize("name", list_models())
def test_the_pass_of_a_network_stays_on_its_device(name: str) -> None:
    card = model_card(name)
    size = small_size(card)
    shape = (card.in_channels, *size)
    model, layer = create_model(name, size=size).to(DEVICE), card.default_layer
    traced = trace(model, [layer], shape)[layer]
    target = Target(layer, (center_unit(traced.feature_shape[1:]),), traced.layout)
    gradient = meta_gradient(model, target, shape)
    assert gradient.device == DEVICE
    assert gradient.shape == (2, *shape)


def test_a_tensor_of_the_cpu_in_a_pass_is_found() -> None:
    class Masked(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.ones(x.shape)

    network = nn.Sequential(nn.Conv2d(1, 2, 3), Masked(), nn.ReLU()).to(DEVICE)
    with pytest.raises(RuntimeError, match="device"):
        meta_gradient(network, Target("2", ((3, 3),)), (1, 12, 12))
