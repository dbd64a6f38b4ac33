"""Streaming moments against NumPy on all maps at once."""

import numpy as np
import pytest
import torch

from erf.definitions import DEFINITIONS
from erf.moments import Moments, RunningMoments, ShelvedMoments, small_block

CPU = torch.device("cpu")


def accumulate(gradients: np.ndarray, definitions: tuple[str, ...] = tuple(DEFINITIONS)) -> RunningMoments:
    running = RunningMoments(definitions, gradients.shape[-2:], CPU)
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
    shelf = ShelvedMoments(running)
    for definition in DEFINITIONS:
        np.testing.assert_array_equal(shelf.moments(definition).mean, running.moments(definition).mean)
        np.testing.assert_array_equal(shelf.moments(definition).deviations, running.moments(definition).deviations)
    shelf.close()


def test_footprint_of_one_image(gradients: np.ndarray) -> None:
    running = RunningMoments(("abs", "square"), gradients.shape[-2:], CPU)
    footprint = running.add([torch.from_numpy(gradients[0])])["square"]
    values = (gradients[0] ** 2).sum(0)
    np.testing.assert_allclose(footprint.across_rows, values.sum(0), rtol=1e-6)  # kept in float32
    np.testing.assert_allclose(footprint.across_columns, values.sum(1), rtol=1e-6)
    block = small_block(values.shape)
    assert block == 3
    assert footprint.small.shape == (100, 86)  # 257 = 85 blocks of 3 and one of 2
    for y, x in ((0, 0), (42, 17), (99, 85)):
        expected = values[block * y : block * (y + 1), block * x : block * (x + 1)].sum()
        np.testing.assert_allclose(footprint.small[y, x], expected, rtol=1e-6)
