"""The kept graph of an image: each unit's gradient equals that of a pass of its own."""

import pytest
import torch
from torch import Tensor, nn

import erf
from erf.errors import NoGradientError
from erf.gradients.autograd import Target, unit_gradients
from erf.gradients.graph import CancelledError, ImageGraph
from erf.gradients.way import PLAIN, Way

CPU = torch.device("cpu")


def test_units_of_all_layers_have_the_gradients_of_single_passes() -> None:
    network = erf.build_network("gmic", size=(256, 192))
    points = [point for point in network.mapped_layers() if point.calls == 1]
    inputs = torch.randn(1, 1, 256, 192)
    for way in (PLAIN, Way(channels_last=True, own_backward=True)):
        with way.applied(network.model, CPU):
            graph = ImageGraph(network.model, inputs, [point.name for point in points])
            for point in points[::9]:
                unit = tuple(length // 3 for length in point.trace.feature_shape[1:])
                target = Target(point.name, (unit,), point.trace.layout)
                (expected,) = unit_gradients(network.model, inputs, [target])
                found = graph.gradient(target)
                assert found.shape == (1, 256, 192)
                assert (found - expected[0]).abs().max() <= 1e-5 * expected.abs().max()


class Inplace(nn.Module):
    """A network that changes the output of a layer after it has returned."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 1, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        maps = self.first(image)
        maps.clamp_(min=0)
        return self.second(maps)


def test_a_layer_whose_output_is_changed_in_place_keeps_its_gradient() -> None:
    torch.manual_seed(0)
    model, inputs = Inplace(), torch.randn(1, 1, 9, 9)
    target, last = Target("first", ((4, 4),)), Target("second", ((4, 4),))
    graph = ImageGraph(model, inputs, ["first", "second"])
    (expected,) = unit_gradients(model, inputs, [target])
    assert (graph.gradient(target) - expected[0]).abs().max() < 1e-6
    assert graph.value(target) is None
    value = graph.value(last)
    assert value is not None
    assert torch.allclose(value, model(inputs)[:, :, 4, 4])


def test_a_cancelled_pass_ends_and_leaves_the_graph_usable() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3))
    graph = ImageGraph(model, torch.randn(1, 1, 16, 16), ["0", "1", "2"])
    target = Target("2", ((3, 3),))
    with pytest.raises(CancelledError):
        graph.gradient(target, lambda: True)
    assert graph.gradient(target).abs().sum() > 0


def test_a_layer_without_gradient_is_an_error() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3)

        def forward(self, image: Tensor) -> Tensor:
            return self.second(self.first(image).detach().requires_grad_())

    graph = ImageGraph(Cut(), torch.randn(1, 1, 9, 9), ["first", "second"])
    with pytest.raises(NoGradientError, match="no gradient"):
        graph.gradient(Target("second", ((1, 1),)))
