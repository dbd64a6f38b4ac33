"""Input gradients by phases against those of the library."""

import pytest
import torch
from torch import nn

from erf.gradients import frozen, unit_gradient
from erf.models import create_model
from erf.phases import input_gradient, phased_stems

CASES = [
    (kernel, stride, padding, size)
    for kernel in ((7, 7), (3, 3), (4, 4), (2, 2), (5, 3), (8, 8))
    for stride in (2, 3, 4)
    for padding in ((0, 0), (3, 3), (1, 2))
    for size in ((23, 31), (24, 32))
    if min(kernel) >= stride and padding[0] <= kernel[0] and padding[1] <= kernel[1]
]


@pytest.mark.parametrize(("kernel", "stride", "padding", "size"), CASES)
def test_the_gradient_is_the_librarys(
    kernel: tuple[int, int], stride: int, padding: tuple[int, int], size: tuple[int, int]
) -> None:
    inputs = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 3, *kernel, dtype=torch.float64)
    output = nn.functional.conv2d(inputs, weight, None, stride, padding)
    gradient = torch.randn_like(output)
    (expected,) = torch.autograd.grad(output, inputs, gradient)
    # The same sums in another order, in double precision.
    torch.testing.assert_close(input_gradient(gradient, weight, stride, padding, size), expected, rtol=0, atol=1e-12)


def test_a_network_has_the_same_forward_pass_and_gradient() -> None:
    model = create_model("hct").double()
    inputs = torch.randn(2, 1, 256, 192, dtype=torch.float64)
    with frozen(model):
        plain = unit_gradient(model, inputs, "final", (1, 0))
        with phased_stems(model):
            assert "forward" in vars(next(module for module in model.modules() if isinstance(module, nn.Conv2d)))
            phased = unit_gradient(model, inputs, "final", (1, 0))
    assert not any("forward" in vars(module) for module in model.modules())
    torch.testing.assert_close(phased, plain, rtol=0, atol=1e-12 * float(plain.abs().max()))


@pytest.mark.parametrize(
    "options",
    [{"stride": 1}, {"groups": 2}, {"dilation": 2}, {"padding_mode": "reflect", "padding": 1}, {"stride": (2, 1)}],
)
def test_other_convolutions_are_left_alone(options: dict[str, object]) -> None:
    model = nn.Sequential(nn.Conv2d(2, 4, 3, **({"stride": 2} | options)))  # type: ignore[arg-type]
    with phased_stems(model):
        assert "forward" not in vars(model[0])
