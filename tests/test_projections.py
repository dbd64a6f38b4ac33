"""An ERF over draws of random projections against one run per draw."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import erf
from erf.gradients.autograd import unit_gradient
from erf.images import from_arrays
from erf.models import create_model
from erf.network.projections import Projections
from erf.results import ERF, Profile
from tests.agreement import assert_gradients_agree, assert_statistics_agree

SIZE = (192, 160)
SIDES = ["left", "left", "right"]


@pytest.fixture
def arrays() -> list[np.ndarray]:
    return [np.random.default_rng(seed).standard_normal((1, *SIZE)).astype(np.float32) for seed in range(3)]


def run(arrays: list[np.ndarray], name: str = "hct", **options: Any) -> ERF:
    return erf.compute(create_model(name).double(), from_arrays(arrays, SIDES), device="cpu", **options)


@pytest.mark.parametrize("name", ["hct", "hct-softmax"])
def test_it_is_the_mean_over_networks_with_other_projections(arrays: list[np.ndarray], name: str) -> None:
    result = run(arrays, name, projections=3)
    model = create_model(name).double()
    draws = Projections(model, 3, seed=0)
    maps = np.zeros((3, 3, *SIZE))  # draw, image
    with draws.each() as indices:
        for draw in indices:
            for image, array in enumerate(arrays):
                gradient = unit_gradient(model, torch.from_numpy(array)[None].double(), "final", result.provenance.unit)
                maps[draw, image] = gradient[0].abs().sum(0)
    assert np.abs(maps[0] - maps[1]).max() > 0.01 * maps.max()
    for subset, members in {"all": [0, 1, 2], "left": [0, 1], "right": [2]}.items():
        statistics = result.statistics(subset)
        assert statistics.count == len(members)
        assert statistics.draws is not None
        chosen = maps[:, members]
        assert_statistics_agree(statistics, chosen.mean(0), rtol=1e-9)
        each = chosen.mean(1)
        assert_gradients_agree(statistics.draws.across_rows, each.sum(1), rtol=1e-9)
        assert_gradients_agree(statistics.draws.across_columns, each.sum(2), rtol=1e-9)
        assert_gradients_agree(statistics.draws.small.sum((1, 2), dtype=np.float64), each.sum((1, 2)), rtol=1e-6)


def test_spread_by_hand() -> None:
    draws = Profile(
        np.array([[0.0, 1, 0, 0], [0, 0, 0, 1]]),
        np.array([[1.0, 0], [0, 1]]),
        np.array([[[1.0, 0]], [[0.5, 0.5]]], np.float32),
        *[np.empty((2, 0), np.float32)] * 3,
    )
    blank = np.zeros((2, 4), np.float32)
    spread = erf.Statistics(1, blank, blank, blank[0], blank[:, 0], draws).spread()
    assert spread is not None
    # Centroids x 1 and 3, y 0 and 1; shares (1, 0) and (1/2, 1/2) have a quarter elsewhere than their mean.
    assert spread.centroid == pytest.approx((np.sqrt(0.5), np.sqrt(2)))
    assert spread.total_variation == pytest.approx(0.25)


def test_a_single_draw_is_the_network_itself(arrays: list[np.ndarray]) -> None:
    plain, one = run(arrays), run(arrays, projections=1)
    np.testing.assert_array_equal(plain.statistics().mean, one.statistics().mean)
    assert one.statistics().draws is None
    assert one.statistics().spread() is None


def test_the_first_draw_is_the_networks_own_and_comes_back() -> None:
    model = create_model("hct-softmax")
    own = {name: buffer.clone() for name, buffer in model.named_buffers()}
    draws = Projections(model, 2, seed=0)
    seen = []
    with draws.each() as indices:
        for _ in indices:
            seen.append({name: buffer.clone() for name, buffer in model.named_buffers()})
    changed = [name for name in own if not torch.equal(seen[1][name], own[name])]
    assert changed
    assert all("projection_matrix" in name for name in changed)
    for name, buffer in model.named_buffers():
        assert torch.equal(seen[0][name], own[name])
        assert torch.equal(buffer, own[name])
    again = Projections(create_model("hct-softmax"), 2, seed=0)
    other = Projections(create_model("hct-softmax"), 2, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(draws._draws[1], again._draws[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(draws._draws[1], other._draws[1], strict=True))


def test_draws_leave_the_global_random_state_alone() -> None:
    state = torch.random.get_rng_state()
    Projections(create_model("hct"), 3, seed=0)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_file_keeps_the_draws(arrays: list[np.ndarray], tmp_path: Path) -> None:
    result = run(arrays, projections=2)
    erf.save(result, tmp_path / "a.h5")
    again = erf.load(tmp_path / "a.h5")
    assert again.provenance.projections == 2
    assert again.statistics("left").spread() == result.statistics("left").spread()
    one, other = (each.statistics().draws for each in (again, result))
    assert one is not None
    assert other is not None
    np.testing.assert_array_equal(one.small, other.small)


@pytest.mark.parametrize(("name", "count"), [("gmic", 2), ("hct-exact", 4), ("hct", 0)])
def test_without_a_random_projection_it_says_so(arrays: list[np.ndarray], name: str, count: int) -> None:
    words = "at least one draw is needed" if count == 0 else "has no random projection"
    with pytest.raises(erf.InputError, match=words):
        run(arrays, name, projections=count)
