"""Every measure on maps whose answer is known."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import erf
from erf.images import from_arrays
from erf.measures import (
    MEASURES,
    Grid,
    Observations,
    Sample,
    dynamics,
    measure_map,
    observe,
    pick_measures,
    shape,
    size,
)
from tests.agreement import assert_gradients_agree

SIZE = (333, 255)
CENTER = (160.0, 140.0)
BLOCKS = [1, 3, 5]


def observations(maps: np.ndarray, block: int, center: tuple[float, float] = CENTER, **more: object) -> Observations:
    """What a file would keep of maps (N, H, W)."""
    maps = np.asarray(maps, np.float64)
    starts = [np.arange(0, length, block) for length in maps.shape[1:]]
    small = np.add.reduceat(np.add.reduceat(maps, starts[0], axis=1), starts[1], axis=2)
    count = len(maps)
    names = np.array([str(index) for index in range(count)])
    settings = {"sides": np.array([""] * count), "groups": names, "keys": names} | more
    return Observations(Grid(maps.shape[1:], block, center), small, maps.sum(1), maps.sum(2), **settings)


def value(name: str, map_: np.ndarray, block: int, center: tuple[float, float] = CENTER, **more: object) -> float:
    return float(MEASURES[name].of(observations(map_[None], block, center, **more).all()))


def gaussian(sigma_y: float, sigma_x: float, center: tuple[float, float] = CENTER, angle: float = 0.0) -> np.ndarray:
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(float)
    y, x = y - center[0], x - center[1]
    turn = np.radians(angle)
    along, across = x * np.cos(turn) + y * np.sin(turn), -x * np.sin(turn) + y * np.cos(turn)
    return np.exp(-(along**2) / (2 * sigma_x**2) - across**2 / (2 * sigma_y**2))


def square(side: int, center: tuple[int, int] = (160, 140)) -> np.ndarray:
    map_ = np.zeros(SIZE)
    half = side // 2
    map_[center[0] - half : center[0] + half + 1, center[1] - half : center[1] + half + 1] = 1
    return map_


# Tolerances below: a Gaussian of sigma 20 summed over blocks of up to 5 pixels is wider by block²/12 in variance, and
# zones are a quarter of a block wide.


@pytest.mark.parametrize("block", BLOCKS)
def test_a_round_gaussian(block: int) -> None:
    sigma, map_ = 20.0, gaussian(20, 20)
    for name, share in (("r50", 0.5), ("r90", 0.9), ("r95", 0.95), ("r99", 0.99)):
        # Rayleigh: the mass within R is 1 - exp(-R² / (2 sigma²)).
        assert value(name, map_, block) == pytest.approx(sigma * np.sqrt(-2 * np.log(1 - share)), rel=0.006)
    assert value("rms_radius", map_, block) == pytest.approx(sigma * np.sqrt(2), rel=1e-6)
    # The entropy of a Gaussian is log(2 pi e sigma²); within blocks it is lost, in part.
    assert value("effective_area", map_, block) == pytest.approx(2 * np.pi * np.e * sigma**2, rel=0.006)
    assert value("luo_size", map_, block) == pytest.approx(
        np.sqrt(np.pi * 2 * np.log(1 / (1 - 0.9545))) * sigma, rel=0.02
    )
    for axis in "xy":
        assert value(f"fwhm_{axis}", map_, block) == pytest.approx(2 * np.sqrt(2 * np.log(2)) * sigma, rel=0.005)
        # Means over 4 pixels widen a Gaussian by 4² / 12 in variance.
        assert value(f"sigma_{axis}", map_, block) == pytest.approx(np.sqrt(sigma**2 + 16 / 12), rel=1e-3)
        assert value(f"gaussian_{axis}", map_, block) > 0.9999
    assert value("gaussian_map", map_, block) > 0.9999
    assert value("anisotropy", map_, block) == pytest.approx(1, abs=1e-3)
    assert value("shift_x", map_, block) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("angle", [0.0, 30.0, -60.0])
def test_a_long_gaussian(block: int, angle: float) -> None:
    map_ = gaussian(10, 25, angle=angle)
    assert value("anisotropy", map_, block) == pytest.approx(2.5, rel=0.01)
    assert value("orientation", map_, block) == pytest.approx(angle, abs=0.2)
    assert value("rms_radius", map_, block) == pytest.approx(np.hypot(10, 25), rel=1e-4)
    if angle == 0:
        seen = observations(map_[None], block)
        sigma_y, sigma_x, r2 = shape.gaussian_map(seen.small, seen.grid)
        assert (sigma_y[0], sigma_x[0]) == pytest.approx((10, 25), rel=0.02)
        assert r2[0] > 0.999
    else:
        assert value("gaussian_map", map_, block) < 0.95  # its axes are those of the image


@pytest.mark.parametrize("block", BLOCKS)
def test_a_delta(block: int) -> None:
    map_ = square(1)
    for name in ("r50", "r99", "fwhm_x"):
        assert 0 <= value(name, map_, block) <= 2 * max(block, 4)
    assert value("rms_radius", map_, block) == 0
    assert value("effective_area", map_, block) == pytest.approx(block**2)
    assert value("gini", map_, block) == pytest.approx(1 - block**2 / (SIZE[0] * SIZE[1]), abs=1e-9)
    assert value("centroid_x", map_, block) == 140
    assert value("centroid_y", map_, block) == 160


@pytest.mark.parametrize("block", BLOCKS)
def test_a_uniform_map(block: int) -> None:
    middle, map_ = ((SIZE[0] - 1) / 2, (SIZE[1] - 1) / 2), np.ones(SIZE)
    area = SIZE[0] * SIZE[1]
    assert value("effective_area", map_, block, middle) == pytest.approx(area)
    assert value("gini", map_, block, middle) == pytest.approx(0, abs=1e-12)
    # A square around the middle that fits the image holds its share of the area.
    assert value("square50", map_, block, middle) == pytest.approx(0.5, rel=0.01)
    variances = [(length**2 - 1) / 12 for length in SIZE]
    assert value("rms_radius", map_, block, middle) == pytest.approx(np.sqrt(sum(variances)), rel=1e-9)
    assert value("anisotropy", map_, block, middle) == pytest.approx(np.sqrt(variances[0] / variances[1]), rel=1e-3)
    assert value("fwhm_x", map_, block, middle) == SIZE[1]
    assert value("fwhm_y", map_, block, middle) == SIZE[0]
    assert value("luo_size", map_, block, middle) == pytest.approx(np.sqrt(area))
    # RepLKNet's ratio of a uniform map is about its share: the smallest odd square above it.
    ratios = measure_map(np.ones((301, 301)))
    assert ratios["replknet50"] == pytest.approx(0.5, abs=0.01)


def test_replknet_written_out() -> None:
    map_ = np.random.default_rng(0).random((40, 31)) ** 8
    scaled = np.log10(map_ + 1)
    scaled = scaled / scaled.max()
    for share in (0.2, 0.5, 0.99):
        expected = float("nan")
        for half in range(1, 15):
            inside = scaled[20 - half : 20 + half + 1, 15 - half : 15 + half + 1].sum()
            if inside / scaled.sum() > share:
                expected = (2 * half + 1) ** 2 / map_.size
                break
        assert size.replknet_area_ratio(map_, share) == pytest.approx(expected, nan_ok=True)
    # Its defect: another scale, another ratio.
    wide = gaussian(60, 60, (SIZE[0] // 2, SIZE[1] // 2))
    assert size.replknet_area_ratio(1e4 * wide, 0.5) > 1.3 * size.replknet_area_ratio(1e-3 * wide, 0.5)


@pytest.mark.parametrize(
    "layers",
    [
        [(3, 1, 1)] * 8,
        [(5, 1, 1)] * 4,
        [(3, 1, 1), (3, 2, 1), (3, 1, 2)],
        [(7, 2, 1), (3, 2, 1), (3, 1, 1), (3, 1, 4)],
    ],
)
def test_a_stack_of_box_convolutions(layers: list[tuple[int, int, int]]) -> None:
    """Luo et al.: n boxes of width k have variance n (k² - 1) / 12; strides and dilations scale each term."""
    net = nn.Sequential()
    for kernel, stride, dilation in layers:
        net.append(nn.Conv2d(1, 1, kernel, stride, dilation * (kernel - 1) // 2, dilation, bias=False))
        nn.init.constant_(net[-1].weight, 1 / kernel**2)
    images = from_arrays([np.random.default_rng(0).standard_normal((1, 129, 97))])
    result = erf.compute(net.double(), images, layer=str(len(layers) - 1), device="cpu")
    variance, stride_so_far = 0.0, 1
    for kernel, stride, dilation in layers:
        variance += dilation**2 * (kernel**2 - 1) / 12 * stride_so_far**2
        stride_so_far *= stride
    sample = observe(result).all()
    assert float(MEASURES["rms_radius"].of(sample)) == pytest.approx(np.sqrt(2 * variance), rel=1e-6)
    assert float(MEASURES["shift_x"].of(sample)) == pytest.approx(0, abs=1e-5)
    assert float(MEASURES["inside_field"].of(sample)) == 1
    # A block counts as a whole.
    assert float(MEASURES["field_ratio"].of(sample)) <= 1 + 2 / result.provenance.field_size[0]


def test_random_weights_are_wider_under_abs_than_under_square() -> None:
    """Over zero-mean weights the expected square follows the box law; abs is about √2 wider (Luo et al., section 2)."""
    sizes = {"abs": [], "square": []}
    for seed in range(12):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1, bias=False))
        for _ in range(7):
            net.append(nn.Conv2d(16, 16, 3, padding=1, bias=False))
        images = from_arrays([np.zeros((1, 49, 49))])
        result = erf.compute(net.double(), images, layer="7", definitions=("abs", "square"), device="cpu")
        for definition, values in sizes.items():
            values.append(float(MEASURES["rms_radius"].of(observe(result, definition=definition).all())) ** 2)
    # Eight 3x3 layers: 2 * 8 * 8 / 12 in both axes together. Twelve draws of weights leave about 4 %.
    assert np.mean(sizes["square"]) == pytest.approx(2 * 8 * 8 / 12, rel=0.12)
    assert np.mean(sizes["abs"]) / np.mean(sizes["square"]) == pytest.approx(2, rel=0.15)


@pytest.mark.parametrize("name", list(MEASURES))
def test_the_scale_of_the_gradient_does_not_matter(name: str) -> None:
    rng = np.random.default_rng(1)
    maps = np.stack([gaussian(20, 15, (160, 120 + 40 * index)) for index in (0, 1, 0, 1)]) * rng.random((4, *SIZE))
    more = {
        "sides": np.array(["left", "right", "left", "right"]),
        "tissue": rng.random((4, 111, 85)),
        "field_box": (100.0, 220.0, 80.0, 200.0),
        "field_size": (120.0, 120.0),
    }
    one, other = (float(MEASURES[name].of(observations(scale * maps, 3, **more).all())) for scale in (1, 1e-9))
    assert np.isfinite(one)
    assert other == pytest.approx(one, rel=1e-6)


@pytest.mark.parametrize("name", ["r50", "r90", "rms_radius", "fwhm_x", "sigma_y", "luo_size"])
def test_twice_the_resolution_doubles_lengths(name: str) -> None:
    map_ = gaussian(20, 15)
    fine = np.kron(map_, np.ones((2, 2)))
    center = (2 * CENTER[0] + 0.5, 2 * CENTER[1] + 0.5)
    assert value(name, fine, 6, center) == pytest.approx(2 * value(name, map_, 3), rel=0.01)


def test_batches_equal_one_after_the_other() -> None:
    rng = np.random.default_rng(0)
    maps = rng.random((6, 60, 50))
    more = {"sides": np.array(["left", "right"] * 3), "tissue": rng.random((6, 20, 17))}
    seen = observations(maps, 3, (30.0, 22.0), **more)
    counts = rng.integers(0, 3, (4, 6)) + np.array([1.0, 1, 0, 0, 0, 0])
    for measure in MEASURES.values():
        together = measure.of(Sample(seen, counts))
        assert together.shape == (4,)
        alone = [float(measure.of(Sample(seen, row))) for row in counts]
        np.testing.assert_allclose(together, alone, rtol=1e-6, err_msg=measure.name)


def test_counts_are_repetitions() -> None:
    rng = np.random.default_rng(0)
    maps, sides = rng.random((3, 60, 50)), np.array(["left", "right", "left"])
    seen = observations(maps, 3, (30.0, 22.0), sides=sides)
    repeated = seen.pick(np.array([0, 0, 1, 2]))
    for measure in MEASURES.values():
        if measure.name not in ("variability", "on_tissue", "tissue_excess"):
            weighed = float(measure.of(Sample(seen, np.array([2.0, 1, 1]))))
            np.testing.assert_allclose(weighed, float(measure.of(repeated.all())), rtol=1e-9, err_msg=measure.name)


def test_left_and_right() -> None:
    left, right = square(21, (160, 100)), square(21, (160, 150))
    more = {"sides": np.array(["left", "right", "left"])}
    seen = observations(np.stack([left, right, left]), 3, **more).all()
    assert float(MEASURES["lean"].of(seen)) == 50
    assert float(MEASURES["separation"].of(seen)) == 50
    assert float(MEASURES["left_right_tv"].of(seen)) == 1
    assert float(MEASURES["left_right_emd"].of(seen)) == 50
    # Three pairs, two of which differ in all of their mass.
    assert float(MEASURES["variability"].of(seen)) == pytest.approx(2 / 3)
    same = observations(np.stack([left, left]), 3, sides=np.array(["left", "right"])).all()
    for name in ("lean", "separation", "left_right_tv", "left_right_emd", "variability"):
        assert float(MEASURES[name].of(same)) == 0


def test_distances_by_hand() -> None:
    one, two = np.array([[2.0, 0, 0, 2]]), np.array([[0.0, 3, 3, 0]])
    assert dynamics.total_variation(one, two) == 1
    assert dynamics.earth_movers_distance(one, two) == 1
    half = np.array([[1.0, 1, 0, 0]])
    assert dynamics.total_variation(one, half) == 0.5
    assert dynamics.earth_movers_distance(one, half) == pytest.approx(1.0)  # half of the mass, by two pixels


def test_tissue() -> None:
    maps = np.zeros((2, 60, 60))
    maps[0, 10, 10], maps[0, 10, 50], maps[1, 50, 50] = 3, 1, 4
    tissue = np.zeros((2, 20, 20))
    tissue[:, :, :10] = 1
    seen = observations(maps, 3, (30.0, 30.0), tissue=tissue).all()
    assert float(MEASURES["on_tissue"].of(seen)) == pytest.approx(3 / 8)
    assert float(MEASURES["tissue_excess"].of(seen)) == pytest.approx(3 / 4)
    assert np.isnan(MEASURES["on_tissue"].of(dataclasses.replace(seen.observed, tissue=None).all()))


def test_a_map_of_zeros_has_no_numbers_but_no_warnings() -> None:
    seen = observations(np.zeros((2, 60, 50)), 3, (30.0, 22.0), sides=np.array(["left", "right"])).all()
    for measure in MEASURES.values():
        measure.of(seen)
    for name in ("r50", "rms_radius", "effective_area", "centroid_x", "left_right_tv"):
        assert np.isnan(MEASURES[name].of(seen))


def test_every_measure_says_what_it_is() -> None:
    for name, measure in MEASURES.items():
        assert measure.name == name
        assert measure.group in ("size", "shape", "position", "dynamics")
        assert all((measure.words, measure.bounds, measure.source))
        assert measure.unit in ("px", "px²", "%", "°", "")


def test_what_cannot_be_measured_is_told(small_erf: erf.ERF) -> None:
    with pytest.raises(erf.InputError, match="no measure 'r51'; expected some of r50"):
        pick_measures(("r51",))
    with pytest.raises(erf.InputError, match="'signed' has negative values"):
        observe(small_erf, definition="signed")
    with pytest.raises(erf.InputError, match="no subset 'top'"):
        observe(small_erf, "top")


def test_what_is_observed_of_a_file(small_erf: erf.ERF) -> None:
    left = observe(small_erf, "left")
    assert len(left) == 3
    assert_gradients_agree(left.all().across_rows, small_erf.statistics("left").across_rows, rtol=1e-6)
    assert_gradients_agree(left.all().small.sum(), small_erf.statistics("left").across_rows.sum(), rtol=1e-6)
    assert left.grid.center == small_erf.provenance.unit_center
    assert left.field_size == (25, 25)
