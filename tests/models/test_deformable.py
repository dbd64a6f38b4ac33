"""Deformable convolution against torchvision's operator, a slow loop, and the ordinary convolution."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import deform_conv2d as torchvision_deform_conv2d

import erf
from erf.images import from_arrays
from erf.models import create_model
from erf.models.layers.deformable import DeformableConv2d, deform_conv2d
from erf.theory.tracing import theoretical_receptive_field
from tests.agreement import assert_gradients_agree

SETTINGS = [(1, 1, 1), (2, 1, 1), (1, 2, 2), (2, 0, 1)]


def problem(stride: int, padding: int, dilation: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64, generator=generator)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64, generator=generator)
    shape = functional.conv2d(x, weight, stride=stride, padding=padding, dilation=dilation).shape
    # Wide enough to leave the map now and then.
    offset = 1.7 * torch.randn(2, 18, *shape[2:], dtype=torch.float64, generator=generator)
    return x, offset, weight


def value(plane: Tensor, y: float, x: float) -> float:
    """Bilinear value at a position, 0 outside, written out."""
    total = 0.0
    top, left = int(np.floor(y)), int(np.floor(x))
    for row, column in itertools.product((top, top + 1), (left, left + 1)):
        if 0 <= row < plane.shape[0] and 0 <= column < plane.shape[1]:
            total += (1 - abs(y - row)) * (1 - abs(x - column)) * float(plane[row, column])
    return total


@pytest.mark.parametrize(("stride", "padding", "dilation"), SETTINGS)
def test_equal_to_a_slow_loop(stride: int, padding: int, dilation: int) -> None:
    x, offset, weight = problem(stride, padding, dilation)
    result = deform_conv2d(x, offset, weight, stride, padding, dilation)
    rng = np.random.default_rng(0)
    for _ in range(20):
        n, o, i, j = (int(rng.integers(length)) for length in result.shape)
        expected = 0.0
        for tap, (row, column) in enumerate(itertools.product(range(3), range(3))):
            y = i * stride - padding + row * dilation + float(offset[n, 2 * tap, i, j])
            across = j * stride - padding + column * dilation + float(offset[n, 2 * tap + 1, i, j])
            expected += sum(float(weight[o, c, row, column]) * value(x[n, c], y, across) for c in range(3))
        assert abs(float(result[n, o, i, j]) - expected) < 1e-11


@pytest.mark.parametrize(("stride", "padding", "dilation"), SETTINGS)
def test_equal_to_torchvision_with_all_gradients(stride: int, padding: int, dilation: int) -> None:
    x, offset, weight = inputs = [tensor.requires_grad_() for tensor in problem(stride, padding, dilation)]
    ours = deform_conv2d(x, offset, weight, stride, padding, dilation)
    theirs = torchvision_deform_conv2d(x, offset, weight, stride=stride, padding=padding, dilation=dilation)
    assert_gradients_agree(ours, theirs, rtol=1e-12)
    probe = torch.randn(ours.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for mine, other in zip(*(torch.autograd.grad(result, inputs, probe) for result in (ours, theirs)), strict=True):
        assert_gradients_agree(mine, other, rtol=1e-12)


@pytest.mark.parametrize(("stride", "padding", "dilation"), SETTINGS)
def test_without_offsets_it_is_a_convolution(stride: int, padding: int, dilation: int) -> None:
    x, offset, weight = problem(stride, padding, dilation)
    expected = functional.conv2d(x, weight, stride=stride, padding=padding, dilation=dilation)
    torch.testing.assert_close(
        deform_conv2d(x, torch.zeros_like(offset), weight, stride, padding, dilation), expected, rtol=1e-10, atol=1e-12
    )


def test_double_backward_and_half_precision() -> None:
    x, offset, weight = (
        tensor[:, :2] if tensor.ndim == 4 and tensor.shape[1] == 3 else tensor for tensor in problem(1, 1, 1)
    )
    inputs = [tensor[..., :3, :3].clone().requires_grad_() for tensor in (x, offset, weight)]
    assert torch.autograd.gradgradcheck(partial(deform_conv2d, stride=1, padding=1, dilation=1), inputs)
    narrow = deform_conv2d(x.bfloat16(), offset.bfloat16(), weight.bfloat16(), 1, 1, 1)
    assert narrow.dtype == torch.bfloat16
    exact = deform_conv2d(x, offset.bfloat16().double(), weight, 1, 1, 1)
    # Values and weights of 8 bits each, summed over 18 products of size 1.
    assert float((narrow.double() - exact).abs().max()) < 0.1


def test_the_field_depends_on_the_data() -> None:
    field = theoretical_receptive_field(create_model("def-gmic"), "final", (1, 512, 384))
    assert field.kind == "data-dependent"
    assert field.size == (np.inf, np.inf)
    assert field.center((3, 2)) == (386, 258)  # moving taps do not move the unit
    assert theoretical_receptive_field(create_model("def-gmic"), "stage3", (1, 512, 384)).kind == "finite"


def test_untrained_it_is_gmic_and_moving_taps_leave_its_field() -> None:
    rng = np.random.default_rng(0)
    images = from_arrays([rng.standard_normal((1, 768, 704)).astype(np.float32)])
    gmic, deformable = create_model("gmic"), create_model("def-gmic")
    state = gmic.state_dict()
    deformable.load_state_dict(
        state | {key: value for key, value in deformable.state_dict().items() if "offset" in key}
    )
    maps = [
        erf.compute(model, images, layer="stage4.0", device="cpu").statistics().mean for model in (gmic, deformable)
    ]
    assert_gradients_agree(maps[1], maps[0], rtol=1e-5)
    moving = create_model("def-gmic", offset_scale=0.05)
    result = erf.compute(moving, images, layer="stage4.0", device="cpu")
    assert result.provenance.field_kind == "data-dependent"
    assert (result.statistics().mean > 0).sum() > (maps[0] > 0).sum()


def test_the_layer_starts_without_offsets() -> None:
    layer = DeformableConv2d(3, 5, stride=2)
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(layer(x), functional.conv2d(x, layer.weight, stride=2, padding=1), rtol=1e-4, atol=1e-5)
