"""Our backward passes against those of the library."""

from typing import Any

import pytest
import torch
from torch import nn

from erf.gradients.autograd import unit_gradient
from erf.gradients.backward import input_gradient, input_gradients_only
from erf.models import create_model
from erf.network.modes import frozen
from tests.agreement import assert_gradients_agree

CASES = [
    (kernel, stride, padding, size)
    for kernel in ((7, 7), (3, 3), (4, 4), (2, 2), (5, 3), (8, 8))
    for stride in (2, 3, 4)
    for padding in ((0, 0), (3, 3), (1, 2))
    for size in ((23, 31), (24, 32))
    if min(kernel) >= stride and padding[0] <= kernel[0] and padding[1] <= kernel[1]
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), CASES)
def test_the_gradient_is_the_librarys(
    kernel: tuple[int, int], stride: int, padding: tuple[int, int], size: tuple[int, int], channels: int
) -> None:
    inputs = torch.randn(2, channels, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, channels, *kernel, dtype=torch.float64)
    output = nn.functional.conv2d(inputs, weight, None, stride, padding)
    gradient = torch.randn_like(output)
    (expected,) = torch.autograd.grad(output, inputs, gradient)
    # The same sums in another order, in double precision.
    assert_gradients_agree(input_gradient(gradient, weight, stride, padding, size), expected, rtol=1e-12)


def test_a_network_has_the_same_forward_pass_and_gradient() -> None:
    model = create_model("hct").double()
    inputs = torch.randn(2, 1, 256, 192, dtype=torch.float64)
    with frozen(model):
        plain = unit_gradient(model, inputs, "final", (1, 0))
        with input_gradients_only(model):
            assert "forward" in vars(next(module for module in model.modules() if isinstance(module, nn.Conv2d)))
            phased = unit_gradient(model, inputs, "final", (1, 0))
    assert not any("forward" in vars(module) for module in model.modules())
    assert_gradients_agree(phased, plain, rtol=1e-11)


@pytest.mark.parametrize(
    "options",
    [{"stride": 1}, {"groups": 2}, {"dilation": 2}, {"padding_mode": "reflect", "padding": 1}, {"stride": (2, 1)}],
)
def test_other_convolutions_are_left_alone(options: dict[str, Any]) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3, **({"stride": 2} | options)))
    with input_gradients_only(model):
        assert "forward" not in vars(model[0])


@pytest.mark.parametrize("affine", [True, False])
def test_normalisation_keeps_nothing_and_gives_the_same(affine: bool) -> None:
    norm = nn.BatchNorm2d(3, affine=affine).double()
    for tensor in (norm.running_mean, norm.running_var, *norm.parameters()):
        tensor.data.uniform_(0.5, 2)  # type: ignore[union-attr]
    model = nn.Sequential(norm, nn.Conv2d(3, 2, 3).double()).eval()
    inputs = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    with frozen(model):
        output, gradient = model(inputs), unit_gradient(model, inputs, "1", (3, 3))
        with input_gradients_only(model):
            assert "forward" in vars(norm)
            assert_gradients_agree(model(inputs), output, rtol=1e-12)
            assert_gradients_agree(unit_gradient(model, inputs, "1", (3, 3)), gradient, rtol=1e-12)


def test_normalisation_by_the_batch_is_left_alone() -> None:
    for norm in (nn.BatchNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False).eval()):
        with input_gradients_only(nn.Sequential(norm)):
            assert "forward" not in vars(norm)


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.MaxPool2d((3, 2), stride=(1, 2), padding=(1, 0), ceil_mode=True),
        nn.MaxPool2d(3, stride=1, padding=1, dilation=2),
    ],
    ids=str,
)
def test_pooling_keeps_the_places_of_maxima_and_gives_the_same(pool: nn.MaxPool2d, last: bool) -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), pool, nn.Conv2d(3, 2, 3)).double()
    inputs = torch.randn(2, 2, 19, 18, dtype=torch.float64)
    kept: list[torch.dtype] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.dtype)
        return tensor

    with frozen(model, torch.channels_last if last else torch.contiguous_format):
        output, gradient = model(inputs), unit_gradient(model, inputs, "2", (3, 3))
        with input_gradients_only(model):
            assert "forward" in vars(pool)
            assert_gradients_agree(model(inputs), output, rtol=1e-12)
            assert_gradients_agree(unit_gradient(model, inputs, "2", (3, 3)), gradient, rtol=1e-12)
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda it: it):
                pool(inputs.clone().requires_grad_())
    assert kept == [torch.int64]


def test_pooling_takes_single_images_and_leaves_those_alone_that_return_places() -> None:
    pool, maps = nn.MaxPool2d(2), torch.randn(2, 6, 6, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(pool(maps).square().sum(), maps)
    with input_gradients_only(nn.Sequential(pool)):
        (found,) = torch.autograd.grad(pool(maps).square().sum(), maps)
    assert_gradients_agree(found, expected, rtol=1e-12)
    with_places = nn.MaxPool2d(2, return_indices=True)
    with input_gradients_only(nn.Sequential(with_places)):
        assert "forward" not in vars(with_places)
