"""The helper that compares gradients: it refuses to compare rounding, and it sees what is wrong."""

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from erf.results import Statistics
from tests.agreement import Reference, assert_gradients_agree, assert_statistics_agree, plain_gradient
from tests.conftest import small_network


class Normed(nn.Module):
    """A convolution and a norm over its channels, without or with a weight each, and a sum of what this gives."""

    def __init__(self, weighed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.LayerNorm(8, elementwise_affine=weighed)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.layer(x).permute(0, 2, 3, 1))


def unit(model: nn.Module, inputs: Tensor) -> Tensor:
    return model(inputs)[:, 4, 4]


def noise() -> Tensor:
    return torch.randn(1, 1, 9, 9, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("weighed", [False, True])
def test_channels_that_cancel_are_nothing_to_compare(weighed: bool) -> None:
    cancelling = plain_gradient(Normed(weighed), noise(), unit)
    assert np.abs(cancelling.values).max() < 1e-14
    for expected in (cancelling, cancelling.values):
        with pytest.raises(AssertionError, match=r"nothing to compare.*choose one channel"):
            assert_gradients_agree(cancelling.values, expected, rtol=0.1)
    for terms in (
        lambda model, inputs: unit(model, inputs)[:, 3],
        lambda model, inputs: model.layer(inputs)[..., 4, 4],
    ):
        one = plain_gradient(Normed(weighed), noise(), terms)
        assert_gradients_agree(one.values, one, rtol=1e-12)


def test_a_tolerance_that_rounding_exceeds_is_refused() -> None:
    expected = plain_gradient(small_network(), torch.randn(1, 1, 40, 32), lambda model, x: model(x)[..., 5, 4])
    assert_gradients_agree(expected.values, expected, rtol=1e-12)
    with pytest.raises(AssertionError, match="nothing to compare"):
        assert_gradients_agree(expected.values, expected, rtol=1e-16)
    single = plain_gradient(
        small_network(), torch.randn(1, 1, 40, 32), lambda model, x: model(x)[..., 5, 4], precision=np.float32
    )
    with pytest.raises(AssertionError, match="nothing to compare"):
        assert_gradients_agree(expected.values, single, rtol=1e-7)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda g: g * (1 + 1e-7), "values differ, by up to 1e-07 of the largest"),
        (lambda g: np.roll(g, 1, -1), "values differ"),
        (lambda g: -g, "by up to 2 of the largest"),
        (lambda g: g * np.where(g == g.max(), np.nan, 1), "1 of 1280 values differ"),
        (lambda g: g[..., :-1], "shapes"),
        (lambda g: g[0], "shapes"),
        (np.zeros_like, "values differ, by up to 1 of the largest"),
    ],
)
def test_what_differs_is_seen(wrong: Callable[[np.ndarray], np.ndarray], message: str) -> None:
    expected = np.random.default_rng(0).standard_normal((1, 40, 32))
    expected = expected * np.sign(expected.flat[np.abs(expected).argmax()])
    with pytest.raises(AssertionError, match=message):
        assert_gradients_agree(wrong(expected), expected, rtol=1e-8)
    # Stored in single precision each value is off by its last place, which is no difference.
    assert_gradients_agree(expected.astype(np.float32), expected, rtol=1e-12)


@pytest.mark.parametrize(
    "expected", [np.zeros((3, 3)), np.full((3, 3), np.nan), np.zeros((0, 3)), np.full((3, 3), 1e-15)]
)
def test_nothing_is_not_compared(expected: np.ndarray) -> None:
    with pytest.raises(AssertionError, match="nothing to compare"):
        assert_gradients_agree(expected, expected, rtol=1e-3)


def test_a_network_is_left_as_it_was() -> None:
    model = small_network().float()
    model[0].bias.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain_gradient(model, torch.randn(1, 1, 40, 32), lambda model, x: model(x)[..., 5, 4])
    after = model.state_dict()
    assert all(
        tensor.dtype == after[name].dtype and torch.equal(tensor, after[name]) for name, tensor in before.items()
    )
    assert [parameter.requires_grad for parameter in model.parameters()] == [True, False, True, True, True, True]


def test_a_wrong_gradient_of_the_library_is_no_reference() -> None:
    class Flipped(torch.autograd.Function):
        @staticmethod
        def forward(_: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(_: Any, gradient: Tensor) -> Tensor:
            return gradient.flip(-1)

    model = small_network()
    with pytest.raises(AssertionError, match="the library's gradient is off"):
        plain_gradient(model, torch.randn(1, 1, 40, 32), lambda model, x: model(Flipped.apply(x))[..., 5, 4])


def statistics(maps: np.ndarray) -> Statistics:
    mean = maps.mean(0)
    return Statistics(
        len(maps), mean.astype(np.float32), maps.var(0, ddof=1).astype(np.float32), mean.sum(0), mean.sum(1)
    )


def test_statistics_are_those_of_maps() -> None:
    maps = np.random.default_rng(0).uniform(0, 1, (5, 12, 9))
    assert_statistics_agree(statistics(maps), maps, rtol=1e-11)
    for wrong in (
        maps[:4],
        maps * (1 + 1e-6),
        maps[[0, 1, 2, 3, 3]],
        np.roll(maps, 1, 2),
        maps + (np.arange(5) - 2)[:, None, None] / 9,
    ):
        with pytest.raises(AssertionError):
            assert_statistics_agree(statistics(wrong), maps, rtol=1e-11)
    with pytest.raises(AssertionError, match="nothing to compare"):
        assert_statistics_agree(statistics(maps), Reference(maps, 1e-12), rtol=1e-11)


_BY_THE_LIBRARY = re.compile(r"(assert_allclose|assert_close|allclose)\(.*(statistics\(|gradient|\.grad\b)", re.I)


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.rglob("test_*.py")), ids=lambda path: path.name)
def test_gradients_are_compared_by_the_helper(path: Path) -> None:
    if path != Path(__file__):
        tests = ast.parse(path.read_text())
        calls = [ast.unparse(node) for node in ast.walk(tests) if isinstance(node, ast.Call)]
        assert not [
            call
            for call in calls
            if _BY_THE_LIBRARY.match(call.removeprefix("np.testing.").removeprefix("torch.testing."))
        ]
