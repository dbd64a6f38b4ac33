"""Captum's methods through the engine: closed forms of linear networks, and captum's own calls."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import NeuronGradient
from torch import Tensor, nn

import erf
from erf.errors import InputError
from erf.gradients.autograd import Target
from erf.gradients.methods import METHOD_DESCRIPTIONS, METHODS, attributions
from tests.agreement import assert_gradients_agree
from tests.conftest import small_network


def linear_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 5, padding=2, bias=False)).double().eval()


def kernel_map(model: Any) -> np.ndarray:
    """The gradient of unit (6, 5) of a 12 x 10 map: the kernel, summed over channels."""
    expected = np.zeros((12, 10))
    expected[4:9, 3:8] = model[0].weight.detach()[:, 0].sum(0).numpy()
    return expected


@pytest.mark.parametrize("name", ["input-x-gradient", "integrated-gradients", "deeplift", "gradient-shap"])
def test_a_linear_network_has_weight_times_input(name: str) -> None:
    model = linear_network()
    inputs = torch.randn(2, 1, 12, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"stdevs": 0.0} if name == "gradient-shap" else {}
    (found,) = attributions(name, model, inputs, [Target("0", ((6, 5),))], options=options)
    expected = kernel_map(model) * inputs[:, 0].numpy()
    if name == "gradient-shap":
        # Captum draws how far along the way from the baseline: of a linear network that changes nothing.
        assert found.shape == inputs.shape
    # Captum's weights of the steps of integrated gradients sum to 1 in single precision only.
    assert_gradients_agree(found[:, 0], expected, rtol=1e-5 if name == "integrated-gradients" else 1e-12)


def test_occlusion_of_a_linear_network_is_a_share_of_what_is_lost() -> None:
    model = linear_network()
    inputs = torch.randn(1, 1, 12, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (found,) = attributions("occlusion", model, inputs, [Target("0", ((6, 5),))], options={"side": 2})
    # Captum subtracts in single precision values of about 1.
    lost = (kernel_map(model) * inputs[0, 0].numpy()).reshape(6, 2, 5, 2).sum((1, 3))
    assert_gradients_agree(found[0, 0], np.kron(lost, np.ones((2, 2))) / 4, rtol=1e-5, rounding=2.0**-23)


def test_guided_backprop_passes_positive_parts_only() -> None:
    torch.manual_seed(0)
    first, second = nn.Conv2d(1, 3, 3, padding=1).double(), nn.Conv2d(3, 2, 3, padding=1).double()
    model = nn.Sequential(first, nn.ReLU(), second).eval()
    inputs = torch.randn(1, 1, 9, 9, dtype=torch.float64)
    (found,) = attributions("guided-backprop", model, inputs, [Target("2", ((4, 4),))])
    hidden = first(inputs).detach()
    unit = torch.zeros(1, 2, 9, 9, dtype=torch.float64)
    unit[..., 4, 4] = 1
    back = nn.functional.conv_transpose2d(unit, second.weight.detach(), padding=1)
    guided = back.clamp(min=0) * (hidden > 0)
    expected = nn.functional.conv_transpose2d(guided, first.weight.detach(), padding=1)
    assert_gradients_agree(found, expected, rtol=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_through_the_engine(name: str) -> None:
    arrays = [np.random.default_rng(0).standard_normal((1, 40, 32))] * 2
    found = erf.compute(small_network(), erf.from_arrays(arrays), layer="5", method=name, device="cpu")
    mean = found.statistics().mean
    assert mean.any()
    assert np.isfinite(mean).all()
    assert found.provenance.method == name
    assert ("instead of the gradient" in found.provenance.target) == (name != "gradient")
    if name == "gradient-shap":  # drawn anew for each image, and seeded whatever was drawn before
        np.random.rand(3)
        torch.rand(3)
        again = erf.compute(small_network(), erf.from_arrays(arrays), layer="5", method=name, device="cpu")
        np.testing.assert_array_equal(mean, again.statistics().mean)
        assert found.statistics().variance.any()
        assert found.provenance.random
    else:
        assert not found.statistics().variance.any()
    assert set(METHOD_DESCRIPTIONS) == set(METHODS)


def test_several_images_and_channels_reach_captum(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((1, 40, 32)) for _ in range(3)]
    settings: dict[str, Any] = {
        "layer": "5",
        "method": "integrated-gradients",
        "channel": 2,
        "unit": "max",
        "device": "cpu",
    }
    together = erf.compute(small_network(), erf.from_arrays(arrays), batch_size=3, **settings)
    single = erf.compute(small_network(), erf.from_arrays(arrays), batch_size=1, **settings)
    assert_gradients_agree(together.statistics().mean, single.statistics().mean, rtol=1e-11, rounding=1e-16)


def test_options_that_a_method_does_not_have() -> None:
    images = erf.from_arrays([np.zeros((1, 40, 32))])
    for name, option in (("gradient", "n_steps"), ("integrated-gradients", "steps"), ("occlusion", "depth")):
        with pytest.raises(InputError, match=option):
            erf.compute(small_network(), images, layer="5", method=name, method_options={option: 3}, device="cpu")
    with pytest.raises(InputError, match="needs a module that returns one tensor"):
        erf.compute(small_network(), images, layer="output", method="deeplift", device="cpu")


def center(output: Tensor) -> Tensor:
    return output[:, :, output.shape[2] // 2, output.shape[3] // 2].sum(1)


@pytest.mark.parametrize(
    ("selector", "neuron"),
    [
        ("center", center),
        ((1, 2), lambda output: output[:, :, 1, 2].sum(1)),
        ((4, 1, 2), (4, 1, 2)),
        (center, center),
    ],
)
def test_our_attribution_is_captums(selector: Any, neuron: Callable[[Tensor], Tensor]) -> None:
    model = small_network().eval()
    inputs = torch.randn(2, 1, 40, 32, dtype=next(model.parameters()).dtype, requires_grad=True)
    expected = NeuronGradient(model, model[5]).attribute(inputs, neuron)
    assert_gradients_agree(erf.UnitGradient(model, "5").attribute(inputs, selector), expected, rtol=1e-12)


def test_our_attribution_of_two_inputs() -> None:
    class Product(nn.Module):
        def forward(self, one: Tensor, two: Tensor) -> Tensor:
            return one * two[:, :1]

    one, two = torch.randn(1, 1, 6, 4), torch.randn(1, 2, 6, 4)
    found = erf.UnitGradient(Product(), "output").attribute((one, two))
    assert found[0][0, 0, 3, 2] == two[0, 0, 3, 2]
    assert found[1][0, 0, 3, 2] == one[0, 0, 3, 2]
    assert [int(each.count_nonzero()) for each in found] == [1, 1]
    with pytest.raises(InputError, match="2 units"):
        erf.UnitGradient(Product(), "output").attribute((one, two), "0,0;1,1")
