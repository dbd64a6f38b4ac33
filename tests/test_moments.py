"""Streaming moments against NumPy on all maps at once."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from erf.accumulation.moments import Moments
from erf.accumulation.running import RunningMoments
from erf.accumulation.stored import StoredMoments
from erf.box import Box
from erf.definitions import DEFINITIONS
from erf.results import Profile
from erf.results.grid import Grid, outer_edges, small_block

CPU = torch.device("cpu")


def grid_of(gradients: np.ndarray, center: tuple[float, float] = (140.0, 120.5), **more: Any) -> Grid:
    size = gradients.shape[-2:]
    return Grid(size, small_block(size), center, finest=1, **more)


def accumulate(gradients: np.ndarray, definitions: tuple[str, ...] = tuple(DEFINITIONS)) -> RunningMoments:
    running = RunningMoments(definitions, grid_of(gradients), CPU)
    for gradient in gradients:
        running.add([torch.from_numpy(gradient)])
    return running


@pytest.fixture
def gradients() -> np.ndarray:
    """Seven gradients (2, 300, 257) around a large offset, where sums of squares would lose digits."""
    return 1e3 + np.random.default_rng(1).standard_normal((7, 2, 300, 257))


@pytest.mark.parametrize("definition", DEFINITIONS)
def test_mean_and_variance(gradients: np.ndarray, definition: str) -> None:
    maps = DEFINITIONS[definition](gradients)
    moments = accumulate(gradients).moments(definition)
    assert moments.count == 7
    np.testing.assert_allclose(moments.mean, maps.mean(0), rtol=1e-13)
    # Welford loses only digits of the offset, 1e3 / 1 here (1e6 / 1e3 for squares): 1e-16 * 1e3 * a few.
    np.testing.assert_allclose(moments.variance, maps.var(0, ddof=1), rtol=1e-11)


def test_merging_equals_one_pass(gradients: np.ndarray) -> None:
    whole = accumulate(gradients).moments("abs")
    merged = accumulate(gradients[:2]).moments("abs").merge(accumulate(gradients[2:]).moments("abs"))
    assert merged.count == 7
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-13)
    np.testing.assert_allclose(merged.variance, whole.variance, rtol=1e-11)


def test_identical_maps_have_no_variance() -> None:
    gradients = np.repeat(np.random.default_rng(0).standard_normal((1, 1, 20, 20)), 5, axis=0)
    assert not accumulate(gradients).moments("abs").variance.any()


def test_a_single_map_has_no_variance_to_speak_of() -> None:
    assert np.isnan(Moments(1, np.zeros((2, 2)), np.zeros((2, 2))).variance).all()


def test_shelving_changes_nothing(gradients: np.ndarray) -> None:
    running = accumulate(gradients)
    stored = StoredMoments(running)
    for definition in DEFINITIONS:
        np.testing.assert_array_equal(stored.moments(definition).mean, running.moments(definition).mean)
        np.testing.assert_array_equal(stored.moments(definition).deviations, running.moments(definition).deviations)
    stored.close()


def test_footprint_of_one_image(gradients: np.ndarray) -> None:
    grid = grid_of(gradients)
    running = RunningMoments(("abs", "square"), grid, CPU)
    profile = running.add([torch.from_numpy(gradients[0])])["square"]
    check_profile(profile, DEFINITIONS["square"](gradients[0]), grid)


def check_profile(profile: Profile, values: np.ndarray, grid: Grid) -> None:
    """Every sum, pixel by pixel; they are kept in float32."""
    np.testing.assert_allclose(profile.across_rows, values.sum(0), rtol=1e-6)
    np.testing.assert_allclose(profile.across_columns, values.sum(1), rtol=1e-6)
    assert profile.small.shape == grid.shape
    rows, columns = (list(pairwise(bounds)) for bounds in grid.bounds)
    expected = [[values[slice(*row), slice(*column)].sum() for column in columns] for row in rows]
    np.testing.assert_allclose(profile.small, expected, rtol=1e-6)
    y, x = np.ogrid[: values.shape[0], : values.shape[1]]
    y, x = y - grid.center[0], x - grid.center[1]
    for sums, away in ((profile.rings, np.hypot(y, x)), (profile.frames, np.maximum(abs(y), abs(x)))):
        outer = outer_edges(len(sums))
        inner = np.concatenate([[-1], outer[:-1]])
        assert outer[-1] > away.max() >= inner[-1]
        expected = [values[(away >= low) & (away < high)].sum() for low, high in zip(inner, outer, strict=True)]
        np.testing.assert_allclose(sums, expected, rtol=1e-6)
    np.testing.assert_allclose(profile.cross_moment, [(values * y * x).sum()], rtol=1e-5)


@pytest.mark.parametrize("center", [(0.0, 0.0), (299.0, 3.25), (140.5, 256.5), (-7.0, 400.0)])
def test_footprint_of_a_crop(gradients: np.ndarray, center: tuple[float, float]) -> None:
    top, left, bottom, right = box = Box(40, 7, 290, 200)
    grid = grid_of(gradients, center, box=Box(center[0] - 20, center[1] - 30.5, center[0] + 20, center[1] + 30.5))
    running = RunningMoments(("abs",), grid, CPU, box=box)
    profile = running.add([torch.from_numpy(gradients[0, :, top:bottom, left:right])])["abs"]
    whole = np.zeros_like(gradients[0])
    whole[:, top:bottom, left:right] = gradients[0, :, top:bottom, left:right]
    check_profile(profile, DEFINITIONS["abs"](whole), grid)


def test_blocks_are_fine_at_the_unit_and_end_with_squares() -> None:
    grid = Grid((3328, 2560), 26, (1666.0, 1282.0), finest=1, box=Box(1000.5, 900.0, 2331.5, 1664.0))
    for axis, (bounds, length) in enumerate(zip(grid.bounds, grid.size, strict=True)):
        assert (bounds[0], bounds[-1]) == (0, length)
        assert set(range(0, length, 26)) <= set(bounds)
        sides, away = np.diff(bounds), np.abs(grid.middles[axis] - grid.center[axis])
        assert (sides <= np.clip(away / 7, 1, 26)).all()
    assert {1001, 2332} <= set(grid.bounds[0])
    assert {900, 1665} <= set(grid.bounds[1])  # of pixels that are cut, the outer ends
    assert np.prod(grid.shape) < 3 * np.prod(grid.even.shape)
    values = np.random.default_rng(0).random(grid.shape)
    assert grid.evened(values).shape == grid.even.shape
    np.testing.assert_allclose(grid.evened(grid.areas), grid.even.areas)
    np.testing.assert_allclose(grid.evened(values).sum(), values.sum())
