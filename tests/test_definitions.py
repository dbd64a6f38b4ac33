"""Definitions against the formula, written out pixel by pixel."""

import numpy as np
import pytest
import torch

from erf.definitions import DEFINITIONS
from tests.agreement import assert_gradients_agree

RULES = {
    "signed": lambda g: g,
    "abs": abs,
    "relu": lambda g: max(g, 0.0),
    "square": lambda g: g * g,
}


RULES_OF_SUMS = {"relu-sum": lambda total: max(total, 0.0), "abs-sum": abs}


def test_every_definition_is_tested() -> None:
    assert set(RULES) | set(RULES_OF_SUMS) == set(DEFINITIONS)


@pytest.mark.parametrize("name", RULES_OF_SUMS)
def test_the_sum_first_then_the_rule(name: str) -> None:
    gradient = np.random.default_rng(0).standard_normal((3, 4, 5))
    rule = RULES_OF_SUMS[name]
    expected = [[rule(sum(gradient[c, y, x] for c in range(3))) for x in range(5)] for y in range(4)]
    assert_gradients_agree(DEFINITIONS[name](gradient), expected, rtol=1e-13)
    assert_gradients_agree(DEFINITIONS[name](torch.from_numpy(gradient)), expected, rtol=1e-13)


@pytest.mark.parametrize("name", RULES)
def test_each_channel_first_then_the_sum(name: str) -> None:
    gradient = np.random.default_rng(0).standard_normal((3, 4, 5))
    expected = [[sum(RULES[name](gradient[c, y, x]) for c in range(3)) for x in range(5)] for y in range(4)]
    assert_gradients_agree(DEFINITIONS[name](gradient), expected, rtol=1e-13)
    assert_gradients_agree(DEFINITIONS[name](torch.from_numpy(gradient)), expected, rtol=1e-13)


def test_opposite_channels_cancel_only_when_signed() -> None:
    gradient = np.array([[[2.0]], [[-2.0]]])
    assert {name: float(rule(gradient)[0, 0]) for name, rule in DEFINITIONS.items()} == {
        "signed": 0.0,
        "abs": 4.0,
        "relu": 2.0,
        "square": 8.0,
        "relu-sum": 0.0,
        "abs-sum": 0.0,
    }
