"""Checks that a gradient must pass, tried on networks that are known to fail them."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from erf.box import Box, is_inside
from erf.gradients.autograd import Target
from erf.gradients.diagnosis import directions_agree, gradient_end, is_repeatable, pixels_agree, switched_off
from erf.gradients.probe import Probe, border_layer, probe, theoretical_box
from erf.network.modes import frozen
from erf.theory.layers import MappedLayer, default_candidates, list_layers, match_layers
from erf.theory.tracing import trace
from tests.agreement import assert_gradients_agree
from tests.conftest import small_network

TARGET = Target("output", ((8, 6),))


class HalfSquare(torch.autograd.Function):
    """A square whose backward pass lacks the factor 2."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        return gradient * ctx.saved_tensors[0]


class Square(nn.Module):
    def __init__(self, is_wrong: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 2, 3, padding=1)
        self.is_wrong = is_wrong

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        return self.last(HalfSquare.apply(hidden) if self.is_wrong else hidden**2)


@pytest.fixture
def noise() -> Tensor:
    return torch.randn(1, 1, 16, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_finite_differences_find_a_wrong_backward_pass(noise: Tensor) -> None:
    for agree in (directions_agree, pixels_agree):
        with frozen(Square(False).double()) as model:
            # Central differences of a quadratic are exact: what is left is rounding over the step.
            assert agree(model, noise, TARGET).error < 1e-8
        with frozen(Square(True).double()) as model:
            wrong = agree(model, noise, TARGET)
        assert wrong.error == pytest.approx(0.5, abs=1e-6)
        assert_gradients_agree(wrong.measured, 2 * np.array(wrong.expected), rtol=1e-6, rounding=1e-9)


def test_single_pixels_give_the_field_without_a_backward_pass(noise: Tensor) -> None:
    with frozen(Square(False).double()) as model:
        found = pixels_agree(model, noise, TARGET, count=40)
    assert 0 < np.count_nonzero(found.measured) < 40  # evenly drawn pixels lie outside the field too
    assert_gradients_agree(found.measured, found.expected, rtol=1e-6, rounding=1e-9)


def test_what_is_repeatable(noise: Tensor) -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.rand_like(x)

    assert is_repeatable(Square(False).double(), noise, TARGET)
    assert not is_repeatable(Noisy(), noise, TARGET)


def test_where_a_gradient_arrives_nothing_is_said(noise: Tensor) -> None:
    with frozen(small_network().double()) as model:
        inputs = torch.randn(1, 1, 40, 32, dtype=torch.float64)
        assert gradient_end(model, inputs, Target("5", ((3, 3),))) == ""


def test_modules_that_differ_in_training() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1), nn.Dropout2d(), nn.Dropout())
    assert switched_off(model) == "off: 2 Dropout, 1 Dropout2d; running statistics: 1 BatchNorm2d"
    assert switched_off(nn.ReLU()) == ""


def test_layers_of_a_network() -> None:
    model = nn.Sequential()
    model.stem = nn.Conv2d(1, 4, 3, 2, 1)
    model.stage = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU())
    model.norm = nn.BatchNorm2d(4)
    model.same = nn.Identity()
    model.pool = nn.AdaptiveAvgPool2d(1)
    model.flat = nn.Flatten()
    points = list_layers(model, (1, 20, 16))
    maps = ["stem", "stage.0", "stage.1", "stage", "norm", "same", "pool"]
    assert [point.name for point in points] == [*maps, "flat", "output"]  # the last two are vectors
    assert [point.name for point in points if point.trace.layout.places] == maps
    assert [point.name for point in default_candidates(points)] == ["norm", "stage", "stage.1", "stage.0", "stem"]
    assert match_layers(points, "stage*") == ["stage.0", "stage.1", "stage"]
    assert (points[3].trace.field.size, points[3].output_shape) == ((7, 7), (1, 4, 10, 8))
    assert border_layer_of(points, (20, 16)) == "pool"
    assert border_layer_of(points, (6, 16)) == "stage.0"


def border_layer_of(points: list[MappedLayer], size: tuple[int, int]) -> str:
    found = border_layer(points, size)
    return found.name if found else ""


def test_a_probe_stays_inside_theory_and_tells_its_reach() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 5, 2, 2), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1)).double()
    traced = trace(model, ["2"], (1, 32, 24))["2"]
    found = probe(model, "2", (8, 6), traced, (1, 32, 24))
    box = theoretical_box(traced, (8, 6), (32, 24))
    assert found.box == box == (12, 8, 21, 17)
    assert is_inside(found.box, box)
    assert not is_inside(Box(0, 0, 32, 24), box)
    assert is_inside(box, Box(0, 0, 32, 24))
    assert found.reach(1) == 4
    assert not found.touches_border


def test_reach_by_hand() -> None:
    maps = np.zeros((9, 9))
    maps[4, 4], maps[4, 6], maps[1, 4] = 5, 3, 2
    found = Probe(maps, (4, 4))
    assert [found.reach(share) for share in (0.5, 0.51, 0.8, 0.81, 1)] == [0, 2, 2, 3, 3]
    assert not found.touches_border
    maps[0, 4] = 1
    assert Probe(maps, (4, 4)).touches_border
    assert Probe(np.zeros((3, 3)), (1, 1)).box is None
