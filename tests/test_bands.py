"""The beginning of a network in bands of rows, against the network as it is, in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from erf.gradients.autograd import Target, unit_gradients
from erf.gradients.bands import Link, Prefix, banded, find_prefix
from erf.gradients.units import center_unit
from erf.models import create_model, model_card
from erf.network.modes import frozen
from erf.theory.tracing import trace
from tests.agreement import assert_gradients_agree
from tests.models.test_registry import small_size

SHAPE = (2, 61, 23)

ANY: dict[str, Any] = {"worthwhile": -(2**40), "most_rows": 99.0}
"""Bands at any cost."""


def chain(seed: int = 0) -> nn.Sequential:
    """Strides, dilation, padding, pooling, norm, operators in place and up-sampling one after the other."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv2d(2, 6, 5, stride=2, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(6, 6, 3, padding=2, dilation=2),
        nn.BatchNorm2d(6),
        nn.SiLU(),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(6, 5, 4, stride=2, padding=1),
        nn.AvgPool2d(2, 1),
    )
    return network.double().eval()


class Ended(nn.Module):
    """A chain, and an end that takes something else besides its last result."""

    def __init__(self, end: Callable[["Ended", list[Tensor]], Tensor], inputs: int = 2) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.one, self.two, self.three = (nn.Conv2d(channels, 4, 3, padding=1).double() for channels in (inputs, 4, 4))
        self.output = nn.Tanh()
        self._end = end

    def forward(self, x: Tensor) -> Tensor:
        results = [x]
        for module in (self.one, self.two, self.three):
            results.append(module(results[-1]))
        return self.output(self._end(self, results))


def gradient(model: nn.Module, layer: str, prefix: Prefix | None, shape: tuple[int, ...] = SHAPE) -> Tensor:
    traced = trace(model, [layer], shape)[layer]
    target = Target(layer, (center_unit(traced.feature_shape[1:]),), traced.layout)
    inputs = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).to(next(model.parameters()))
    before = inputs.clone()
    with frozen(model), banded(prefix):
        (found,) = unit_gradients(model, inputs, [target])
    assert torch.equal(inputs, before)
    return found


def paths(prefix: Prefix | None) -> list[str]:
    return [link.path for link in prefix.links] if prefix else []


@pytest.mark.parametrize("rows", [1, 2, 3, 5, 16])
@pytest.mark.parametrize("length", [1, 3, 6, 8, 9])
def test_bands_of_any_height_give_the_gradient_of_the_chain(rows: int, length: int) -> None:
    model = chain()[:length]
    traces = trace(model, [str(place) for place in range(length)], SHAPE)
    links = tuple(Link(path, model.get_submodule(path), found) for path, found in traces.items())
    # Past the softmax a unit sees the whole map, so that every band counts.
    model.add_module("flat", nn.Flatten(2))
    model.add_module("softmax", nn.Softmax(2))
    model.add_module("map", nn.Unflatten(2, links[-1].shape[1:]))
    prefix = Prefix(links, links[-1].bands(rows, SHAPE[1]))
    assert_gradients_agree(gradient(model, "map", prefix), gradient(model, "map", None), 1e-10)


def test_a_chain_is_found_as_far_as_it_is_local() -> None:
    model = nn.Sequential(
        chain(), nn.Conv2d(5, 3, 3, padding=1).double(), nn.InstanceNorm2d(3), nn.Conv2d(3, 3, 1).double()
    )
    prefix = find_prefix(model, ["3"], SHAPE, **ANY)
    assert prefix is not None
    assert paths(prefix) in (["0"], ["0", "1"])
    assert prefix.bands[-1].last == prefix.links[-1].shape[1]
    assert all(one.last == two.first for one, two in zip(prefix.bands, prefix.bands[1:], strict=False))
    assert_gradients_agree(gradient(model, "3", prefix), gradient(model, "3", None), 1e-9)


@pytest.mark.parametrize(
    ("end", "longest"),
    [
        (lambda model, results: results[3], 4),
        (lambda model, results: results[3] + results[3], 3),
        (lambda model, results: results[3] + results[2], 2),
        (lambda model, results: results[3] + results[1].mean(), 1),
        (lambda model, results: results[3] + results[0].sum(1, keepdim=True), 0),
        (lambda model, results: model.two(results[3]), 1),
        (lambda model, results: model.one(results[3]), 0),
    ],
)
def test_a_result_that_something_else_uses_ends_the_chain(end: Callable[..., Tensor], longest: int) -> None:
    # The image has as many channels as the maps where the first module is called again.
    shape = (4, *SHAPE[1:])
    model = Ended(end, 4)
    prefix = find_prefix(model, ["output"], shape, **ANY)
    assert paths(prefix) == ["one", "two", "three", "output"][: len(paths(prefix))]
    assert len(paths(prefix)) <= longest
    assert bool(prefix) == bool(longest)
    assert_gradients_agree(gradient(model, "output", prefix, shape), gradient(model, "output", None, shape), 1e-10)


def test_a_tapped_layer_ends_the_chain() -> None:
    model = nn.Sequential(nn.Sequential(chain(), nn.Tanh()), nn.Conv2d(5, 3, 3).double())
    for layer, allowed in (("0.0", {"0.0"}), ("0.0.4", {f"0.0.{place}" for place in range(5)}), ("1", {"0", "1"})):
        prefix = find_prefix(model, [layer], SHAPE, **ANY)
        assert prefix is not None
        assert set(paths(prefix)) <= allowed
        assert_gradients_agree(gradient(model, layer, prefix), gradient(model, layer, None), 1e-10)


def test_a_module_with_hooks_is_no_link() -> None:
    model = chain()
    model[0].register_forward_hook(lambda module, args, output: 2 * output)
    assert find_prefix(model, ["8"], SHAPE, **ANY) is None


def test_little_memory_is_not_worth_bands() -> None:
    assert find_prefix(chain(), ["8"], SHAPE) is None


@pytest.mark.parametrize("name", ["gmic", "def-gmic", "hct", "unet"])
def test_bands_of_registered_networks(name: str) -> None:
    card = model_card(name)
    size = small_size(card)
    shape, layer = (card.in_channels, *size), card.default_layer
    model = create_model(name, size=size).double()
    prefix = find_prefix(model, [layer], shape, worthwhile=-(2**40), most_rows=5.0)
    if prefix is not None:
        assert_gradients_agree(gradient(model, layer, prefix, shape), gradient(model, layer, None, shape), 1e-8)
