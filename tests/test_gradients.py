"""The gradient of a unit against closed forms, plain autograd, finite differences and captum."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import NeuronGradient
from torch import Tensor, nn

import erf
from erf.errors import LayerError
from erf.gradients.autograd import unit_gradient
from erf.network.modes import frozen
from tests.agreement import assert_gradients_agree, plain_gradient
from tests.conftest import small_network


def convolution(kernel: torch.Tensor, **options: Any) -> nn.Conv2d:
    """A convolution of one channel with a given kernel, in float64."""
    layer = nn.Conv2d(1, 1, (kernel.shape[0], kernel.shape[1]), bias=False, **options).double()
    layer.weight.data = kernel[None, None]
    return layer


def box_stack(n: int, k: int) -> nn.Sequential:
    return nn.Sequential(*(convolution(torch.ones(k, k, dtype=torch.float64), padding=k // 2) for _ in range(n)))


def test_one_convolution_gives_its_kernel() -> None:
    kernel = torch.arange(1.0, 10.0, dtype=torch.float64).reshape(3, 3)
    gradient = unit_gradient(
        nn.Sequential(convolution(kernel, padding=1)), torch.randn(1, 1, 9, 9).double(), "0", (4, 4)
    )
    expected = torch.zeros(9, 9, dtype=torch.float64)
    expected[3:6, 3:6] = kernel
    assert torch.equal(gradient[0, 0], expected)


@pytest.mark.parametrize(("n", "k"), [(2, 3), (5, 3), (4, 5)])
def test_a_stack_of_ones_gives_the_n_fold_convolution(n: int, k: int) -> None:
    size = n * (k - 1) + 5
    gradient = unit_gradient(
        box_stack(n, k), torch.randn(1, 1, size, size).double(), str(n - 1), (size // 2, size // 2)
    )
    curve = np.ones(1)
    for _ in range(n):
        curve = np.convolve(curve, np.ones(k))
    expected = np.zeros((size, size))
    start = size // 2 - len(curve) // 2
    expected[start : start + len(curve), start : start + len(curve)] = np.outer(curve, curve)
    np.testing.assert_array_equal(gradient[0, 0].numpy(), expected)  # integers, so exact in float64


def test_the_identity_gives_the_unit_itself() -> None:
    gradient = unit_gradient(nn.Sequential(nn.Identity()), torch.randn(1, 1, 6, 8).double(), "0", (3, 4))
    assert gradient[0, 0, 3, 4] == 1
    assert gradient.abs().sum() == 1


@pytest.mark.parametrize(("stride", "dilation"), [(2, 1), (1, 3), (3, 2)])
def test_stride_and_dilation_place_the_kernel(stride: int, dilation: int) -> None:
    kernel = torch.arange(1.0, 10.0, dtype=torch.float64).reshape(3, 3)
    layer = convolution(kernel, stride=stride, dilation=dilation)
    gradient = unit_gradient(nn.Sequential(layer), torch.randn(1, 1, 30, 30).double(), "0", (2, 3))
    expected = torch.zeros(30, 30, dtype=torch.float64)
    for row in range(3):
        for column in range(3):
            expected[2 * stride + row * dilation, 3 * stride + column * dilation] = kernel[row, column]
    assert torch.equal(gradient[0, 0], expected)


def unit_values(model: nn.Module, inputs: Tensor) -> Tensor:
    return model(inputs)[:, :, 5, 4]


def test_equal_to_the_plain_autograd_loop() -> None:
    model, inputs = small_network(channels=3), torch.randn(4, 3, 40, 32).double()
    with frozen(model, torch.channels_last):
        ours = unit_gradient(model, inputs, "5", (5, 4))
    for index in range(4):
        expected = plain_gradient(model, inputs[index : index + 1], unit_values)
        # The batch and the memory layout change the order of sums: a few rounding steps of float64.
        assert_gradients_agree(ours[index : index + 1], expected, rtol=1e-12)


def test_equal_to_captum() -> None:
    model, inputs = small_network(), torch.randn(3, 1, 40, 32).double()
    expected = NeuronGradient(model, model[5]).attribute(
        inputs.requires_grad_(), neuron_selector=lambda output: output[:, :, 5, 4].sum(1)
    )
    assert_gradients_agree(unit_gradient(model, inputs, "5", (5, 4)), expected, rtol=1e-12)


def test_equal_to_finite_differences() -> None:
    model, inputs = small_network(), torch.randn(1, 1, 40, 32).double()
    gradient = unit_gradient(model, inputs, "5", (5, 4))
    assert gradient.abs().max() > 1e-3
    rng, step = np.random.default_rng(0), 1e-6
    for _ in range(30):
        y, x = int(rng.integers(6, 36)), int(rng.integers(4, 30))
        shift = torch.zeros_like(inputs)
        shift[0, 0, y, x] = step
        with torch.no_grad():
            difference = (model(inputs + shift) - model(inputs - shift))[0, :, 5, 4].sum() / (2 * step)
        # A central difference with step 1e-6 in float64 is good to about 1e-9.
        assert abs(float(difference - gradient[0, 0, y, x])) < 1e-8


class Tokens(nn.Module):
    """A convolution and a norm, whose map is then read as a list of tokens: the gradient comes in another layout."""

    def __init__(self, norm: Callable[[Tensor], Tensor], tail: Callable[[Tensor, nn.Module], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.linear = nn.Conv2d(1, 8, 3, 2, 1), nn.Linear(8, 8)
        self.norm, self.tail, self.last = norm, tail, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.convolution(x)).flatten(2).transpose(1, 2)
        return self.last(self.tail(tokens, self.linear))


def functional_norm(x: Tensor) -> Tensor:
    return nn.functional.batch_norm(x, torch.full((8,), 0.2).to(x), torch.full((8,), 0.7).to(x))


TAILS: dict[str, Callable[[Tensor, nn.Module], Tensor]] = {
    "linear behind a norm": lambda tokens, linear: linear(nn.functional.layer_norm(tokens, (8,))),
    "each image for itself": lambda tokens, linear: torch.stack([linear(one) for one in tokens]),
    "turned": lambda tokens, linear: linear(tokens.roll(1, 2)),
    "product": lambda tokens, linear: torch.einsum("blc,oc->blo", tokens, linear.weight),
    "plain": lambda tokens, _: tokens,
}


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(8), functional_norm], ids=["module", "function"])
@pytest.mark.parametrize("tail", TAILS.values(), ids=TAILS)
def test_a_norm_before_tokens(norm: Callable[[Tensor], Tensor], tail: Callable[[Tensor, nn.Module], Tensor]) -> None:
    # The library's own gradient of such a norm is wrong by all of it, at batch 1 and by the strides of what comes back.
    model = Tokens(norm, tail).double().eval()
    image = np.random.default_rng(0).standard_normal((1, 24, 20)).astype(np.float32)
    found = erf.compute(model, erf.from_arrays([image]), layer="last", definitions=("signed",), channel=3, device="cpu")
    inputs, step = torch.from_numpy(image)[None].double(), 1e-5
    shifts = step * torch.eye(24 * 20, dtype=torch.float64).reshape(-1, 1, 24, 20)
    place = 6 * 10 + 5
    assert found.provenance.unit == (6, 5)
    with torch.no_grad():
        ahead, behind = (model(inputs + sign * shifts)[:, place, 3] for sign in (1, -1))
    # A central difference: off by the square of its step, and by rounding over it.
    expected = ((ahead - behind) / (2 * step)).reshape(24, 20)
    assert_gradients_agree(found.statistics("all", "signed").mean, expected, rtol=1e-7, rounding=1e-11)


def test_frozen_puts_everything_back() -> None:
    model: Any = small_network().train()
    model[0].weight.requires_grad_(False)
    before = [(p.requires_grad, p.data_ptr(), p.stride()) for p in model.parameters()]
    with frozen(model, torch.channels_last):
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())
    assert model.training
    assert before == [(p.requires_grad, p.data_ptr(), p.stride()) for p in model.parameters()]


def test_frozen_leaves_batch_statistics_alone() -> None:
    model: Any = small_network().train()
    before = model[4].running_mean.clone()
    with frozen(model):
        unit_gradient(model, torch.randn(2, 1, 40, 32).double(), "5", (5, 4))
    assert torch.equal(model[4].running_mean, before)


class Detached(nn.Module):
    """A layer that cuts the gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cut(x.detach())


class Flat(nn.Module):
    """A layer whose output is no map, and one that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.flat, self.unused = nn.Flatten(), nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.flat(x)


@pytest.mark.parametrize(
    ("model", "layer", "message"),
    [
        (Detached(), "cut", "passes no gradient"),
        (Flat(), "flat", r"shape \(1, 36\), expected a map"),
        (Flat(), "unused", "not called"),
        (Flat(), "flatt", "unknown layer 'flatt' in Flat; the nearest are flat"),
    ],
)
def test_a_layer_that_cannot_be_used_is_named(model: nn.Module, layer: str, message: str) -> None:
    with pytest.raises(LayerError, match=message):
        unit_gradient(model, torch.randn(1, 1, 6, 6), layer, (0, 0))
