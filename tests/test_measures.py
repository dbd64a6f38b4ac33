"""Every measure on maps whose answer is known."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import xlogy
from torch import nn

import erf
from erf.accumulation.running import RunningMoments
from erf.box import Box
from erf.images import from_arrays
from erf.measures import (
    MEASURES,
    RESOLUTION,
    SIDE_MEASURES,
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
from erf.results import PROFILE_ARRAYS
from erf.results.grid import small_block
from tests.agreement import assert_gradients_agree

SIZE = (333, 255)
CENTER = (160.0, 140.0)
BLOCKS = [(1, 0), (3, 0), (4, 0), (5, 1), (26, 1)]
"""Longest side, and that at the unit; 0 for the square blocks of older files."""


def observations(
    maps: np.ndarray, blocks: tuple[int, int], center: tuple[float, float] = CENTER, **more: Any
) -> Observations:
    """What a file would keep of maps (N, H, W), summed up pixel by pixel."""
    maps = np.asarray(maps, np.float64)
    count, *size = maps.shape
    grid = Grid(tuple(size), blocks[0], center, blocks[1], more.get("field_box"))
    small = np.add.reduceat(np.add.reduceat(maps, grid.bounds[0][:-1], axis=1), grid.bounds[1][:-1], axis=2)
    names = np.array([str(index) for index in range(count)])
    settings = {"sides": np.array([""] * count), "groups": names, "keys": names} | more
    if grid.finest:
        y, x = (np.arange(length) - middle for length, middle in zip(size, center, strict=True))
        settings["rings"] = zones(maps, np.hypot(y[:, None], x))
        settings["frames"] = zones(maps, np.maximum(abs(y[:, None]), abs(x)))
        settings["cross_moments"] = (maps * y[:, None] * x).sum((1, 2))
    return Observations(grid, small, maps.sum(1), maps.sum(2), **settings)


def zones(maps: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Sums over zones of half a pixel, the first of which reaches to a quarter."""
    numbers = np.floor(2 * distances.ravel() + 0.5).astype(int)
    return np.stack([np.bincount(numbers, map_.ravel()) for map_ in maps])


def value(
    name: str, map_: np.ndarray, blocks: tuple[int, int], center: tuple[float, float] = CENTER, **more: Any
) -> float:
    return float(MEASURES[name].of(observations(map_[None], blocks, center, **more).all()))


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
# zones are a quarter of such a block wide.


@pytest.mark.parametrize("blocks", BLOCKS)
def test_a_round_gaussian(blocks: tuple[int, int]) -> None:
    sigma, map_ = 20.0, gaussian(20, 20)
    for name, share in (("r50", 0.5), ("r90", 0.9), ("r95", 0.95), ("r99", 0.99)):
        # Rayleigh: the mass within R is 1 - exp(-R² / (2 sigma²)).
        assert value(name, map_, blocks) == pytest.approx(sigma * np.sqrt(-2 * np.log(1 - share)), rel=0.006)
    assert value("rms_radius", map_, blocks) == pytest.approx(sigma * np.sqrt(2), rel=1e-6)
    # The entropy of a Gaussian is log(2 pi e sigma²); within blocks it is lost, in part.
    assert value("effective_area", map_, blocks) == pytest.approx(2 * np.pi * np.e * sigma**2, rel=0.006)
    assert value("luo_size", map_, blocks) == pytest.approx(
        np.sqrt(np.pi * 2 * np.log(1 / (1 - 0.9545))) * sigma, rel=0.02
    )
    for axis in "xy":
        assert value(f"fwhm_{axis}", map_, blocks) == pytest.approx(2 * np.sqrt(2 * np.log(2)) * sigma, rel=0.005)
        # Means over 2 pixels widen a Gaussian by (2² - 1) / 12 in variance.
        assert value(f"sigma_{axis}", map_, blocks) == pytest.approx(np.sqrt(sigma**2 + 3 / 12), rel=1e-5)
        assert value(f"gaussian_{axis}", map_, blocks) > 0.9999
    assert value("gaussian_map", map_, blocks) > 0.9999
    assert value("anisotropy", map_, blocks) == pytest.approx(1, abs=1e-3)
    assert value("shift_x", map_, blocks) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("angle", [0.0, 30.0, -60.0])
def test_a_long_gaussian(blocks: tuple[int, int], angle: float) -> None:
    map_ = gaussian(10, 25, angle=angle)
    assert value("anisotropy", map_, blocks) == pytest.approx(2.5, rel=0.01)
    assert value("orientation", map_, blocks) == pytest.approx(angle, abs=0.2)
    assert value("rms_radius", map_, blocks) == pytest.approx(np.hypot(10, 25), rel=1e-4)
    if angle == 0:
        seen = observations(map_[None], blocks)
        sigma_y, sigma_x, r2 = shape.gaussian_map(seen.small, seen.grid)
        assert (sigma_y[0], sigma_x[0]) == pytest.approx((10, 25), rel=0.02)
        assert r2[0] > 0.999
    else:
        assert value("gaussian_map", map_, blocks) < 0.95  # its axes are those of the image


@pytest.mark.parametrize("blocks", BLOCKS)
def test_a_delta(blocks: tuple[int, int]) -> None:
    map_ = square(1)
    assert value("fwhm_x", map_, blocks) == 1
    assert value("rms_radius", map_, blocks) == 0
    assert value("centroid_x", map_, blocks) == 140
    assert value("centroid_y", map_, blocks) == 160
    if blocks in ((3, 0), (4, 0)):  # a field within one block
        for name in ("r50", "r99", "effective_area", "gini"):
            assert np.isnan(value(name, map_, blocks))
    else:
        assert 0 <= value("r50", map_, blocks) <= value("r99", map_, blocks) <= (0.5 if blocks[1] else 1)
        assert value("effective_area", map_, blocks) == pytest.approx(1)
        assert value("gini", map_, blocks) == pytest.approx(1 - 1 / (SIZE[0] * SIZE[1]), abs=1e-9)


@pytest.mark.parametrize("blocks", BLOCKS)
def test_a_uniform_map(blocks: tuple[int, int]) -> None:
    middle, map_ = ((SIZE[0] - 1) / 2, (SIZE[1] - 1) / 2), np.ones(SIZE)
    area = SIZE[0] * SIZE[1]
    assert value("effective_area", map_, blocks, middle) == pytest.approx(area)
    assert value("gini", map_, blocks, middle) == pytest.approx(0, abs=1e-12)
    # A square around the middle that fits the image holds its share of the area.
    assert value("square50", map_, blocks, middle) == pytest.approx(0.5, rel=0.01)
    variances = [(length**2 - 1) / 12 for length in SIZE]
    assert value("rms_radius", map_, blocks, middle) == pytest.approx(np.sqrt(sum(variances)), rel=1e-9)
    assert value("anisotropy", map_, blocks, middle) == pytest.approx(np.sqrt(variances[0] / variances[1]), rel=1e-3)
    assert value("fwhm_x", map_, blocks, middle) == SIZE[1]
    assert value("fwhm_y", map_, blocks, middle) == SIZE[0]
    assert value("luo_size", map_, blocks, middle) == pytest.approx(np.sqrt(area))
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
        layer = nn.Conv2d(1, 1, kernel, stride, dilation * (kernel - 1) // 2, dilation, bias=False)
        nn.init.constant_(layer.weight, 1 / kernel**2)
        net.append(layer)
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
    assert float(MEASURES["field_ratio"].of(sample)) <= 1


def test_random_weights_are_wider_under_abs_than_under_square() -> None:
    """Over zero-mean weights the expected square follows the box law; abs is about √2 wider (Luo et al., section 2)."""
    sizes: dict[str, list[float]] = {"abs": [], "square": []}
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


@pytest.mark.parametrize("blocks", [(3, 0), (3, 1)])
@pytest.mark.parametrize("name", list(MEASURES))
def test_the_scale_of_the_gradient_does_not_matter(name: str, blocks: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    maps = np.stack([gaussian(20, 15, (160, 120 + 40 * index)) for index in (0, 1, 0, 1)]) * rng.random((4, *SIZE))
    more: dict[str, Any] = {
        "sides": np.array(["left", "right", "left", "right"]),
        "tissue": rng.random((4, 111, 85)),
        "field_box": Box(100.0, 80.0, 220.0, 200.0),
        "field_size": (120.0, 120.0),
    }
    one, other = (float(MEASURES[name].of(observations(scale * maps, blocks, **more).all())) for scale in (1, 1e-9))
    assert np.isfinite(one)
    assert other == pytest.approx(one, rel=1e-6)


@pytest.mark.parametrize("name", ["r50", "r90", "rms_radius", "fwhm_x", "sigma_y", "luo_size"])
def test_twice_the_resolution_doubles_lengths(name: str) -> None:
    map_ = gaussian(20, 15)
    fine = np.kron(map_, np.ones((2, 2)))
    center = (2 * CENTER[0] + 0.5, 2 * CENTER[1] + 0.5)
    assert value(name, fine, (6, 1), center) == pytest.approx(2 * value(name, map_, (3, 1)), rel=0.01)


def test_batches_equal_one_after_the_other() -> None:
    rng = np.random.default_rng(0)
    maps = rng.random((6, 60, 50))
    more = {"sides": np.array(["left", "right"] * 3), "tissue": rng.random((6, 20, 17))}
    seen = observations(maps, (3, 1), (30.0, 22.0), **more)
    counts = rng.integers(0, 3, (4, 6)) + np.array([1.0, 1, 0, 0, 0, 0])
    for measure in MEASURES.values():
        together = measure.of(Sample(seen, counts))
        assert together.shape == (4,)
        alone = [float(measure.of(Sample(seen, row))) for row in counts]
        np.testing.assert_allclose(together, alone, rtol=1e-6, err_msg=measure.name)


def test_counts_are_repetitions() -> None:
    rng = np.random.default_rng(0)
    maps, sides = rng.random((3, 60, 50)), np.array(["left", "right", "left"])
    seen = observations(maps, (3, 1), (30.0, 22.0), sides=sides)
    repeated = seen.pick(np.array([0, 0, 1, 2]))
    for measure in MEASURES.values():
        if measure.name not in ("variability", "on_tissue", "tissue_excess"):
            weighed = float(measure.of(Sample(seen, np.array([2.0, 1, 1]))))
            np.testing.assert_allclose(weighed, float(measure.of(repeated.all())), rtol=1e-9, err_msg=measure.name)


def test_left_and_right() -> None:
    left, right = square(21, (160, 100)), square(21, (160, 150))
    sides = np.array(["left", "right", "left"])
    seen = observations(np.stack([left, right, left]), (3, 0), sides=sides).all()
    assert float(MEASURES["lean"].of(seen)) == 50
    assert float(MEASURES["separation"].of(seen)) == 50
    assert float(MEASURES["left_right_tv"].of(seen)) == 1
    assert float(MEASURES["left_right_emd"].of(seen)) == 50
    # Three pairs, two of which differ in all of their mass.
    assert float(MEASURES["variability"].of(seen)) == pytest.approx(2 / 3)
    same = observations(np.stack([left, left]), (3, 0), sides=np.array(["left", "right"])).all()
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
    for blocks in ((3, 0), (3, 1)):
        seen = observations(maps, blocks, (30.0, 30.0), tissue=tissue).all()
        assert seen.on_tissue == pytest.approx(3 / 8)
        assert float(MEASURES["tissue_excess"].compute(seen)) == pytest.approx(3 / 4)
        assert np.isnan(dataclasses.replace(seen.observed, tissue=None).all().on_tissue)
        assert np.isnan(MEASURES["on_tissue"].of(seen))  # two single pixels


def test_a_map_of_zeros_has_no_numbers_but_no_warnings() -> None:
    seen = observations(np.zeros((2, 60, 50)), (3, 1), (30.0, 22.0), sides=np.array(["left", "right"])).all()
    for measure in MEASURES.values():
        measure.of(seen)
    for name in ("r50", "rms_radius", "effective_area", "centroid_x", "left_right_tv"):
        assert np.isnan(MEASURES[name].of(seen))


def test_every_measure_says_what_it_is() -> None:
    for name, measure in MEASURES.items():
        assert measure.name == name
        assert measure.group in ("size", "shape", "position", "dynamics")
        assert all((measure.description, measure.bounds, measure.source, RESOLUTION[measure.part]))
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


@dataclasses.dataclass(frozen=True)
class Case:
    """A Gaussian in an image of 660 x 520 pixels, and the unit's centre."""

    sigma: tuple[float, float]
    angle: float = 0.0
    center: tuple[float, float] = (330.0, 260.0)
    off: tuple[float, float] = (0.0, 0.0)

    size = (660, 520)

    def map(self) -> np.ndarray:
        y, x = (np.arange(n) - c - o for n, c, o in zip(self.size, self.center, self.off, strict=True))
        y, x, turn = y[:, None], x[None], np.radians(self.angle)
        along, across = x * np.cos(turn) + y * np.sin(turn), -x * np.sin(turn) + y * np.cos(turn)
        return np.exp(-(along**2) / (2 * self.sigma[1] ** 2) - across**2 / (2 * self.sigma[0] ** 2))


CASES = [
    *(Case((sigma, sigma)) for sigma in (1, 2, 5, 13, 30, 80)),
    *(Case((sigma, sigma), center=(330.5, 259.5)) for sigma in (1, 5, 30)),
    Case((5, 5), off=(0.3, -0.4)),
    Case((2, 2), center=(330.37, 260.81)),
    Case((3, 15), angle=30),
    Case((10, 40), angle=-50, center=(300.5, 280.25)),
    Case((5, 5), center=(0.0, 519.0)),
    Case((30, 30), center=(655.0, 8.5)),
    Case((20, 20), center=(-4.0, 260.0)),
]


def kept(map_: np.ndarray, center: tuple[float, float], **more: Any) -> Observations:
    """What a run keeps of a map, by its own sums."""
    grid = Grid(map_.shape, small_block(map_.shape), center, 1, more.get("field_box"))
    profile = RunningMoments(("abs",), grid, torch.device("cpu")).add([torch.from_numpy(map_[None])])["abs"]
    arrays = [getattr(profile, name)[None].astype(float) for name in PROFILE_ARRAYS]
    small, rows, columns, rings, frames, product = (
        arrays[PROFILE_ARRAYS.index(name)]
        for name in ("small", "across_rows", "across_columns", "rings", "frames", "cross_moment")
    )
    one = np.array([""])
    return Observations(grid, small, rows, columns, one, one, one, None, rings, frames, product[:, 0], **more)


def enclosing(map_: np.ndarray, distances: np.ndarray, share: float) -> float:
    """Distance of the pixel at which the mass reaches a share, pixels taken in the order of their distance."""
    order = np.argsort(distances.ravel(), kind="stable")
    held = np.cumsum(map_.ravel()[order])
    return float(distances.ravel()[order][np.searchsorted(held, share * held[-1])])


def by_pixels(map_: np.ndarray, center: tuple[float, float]) -> dict[str, float]:
    """Measures from every pixel of a map."""
    y, x = (np.arange(length) - middle for length, middle in zip(map_.shape, center, strict=True))
    y, p = y[:, None], map_ / map_.sum()
    away = np.hypot(y, x)
    found = {f"r{percent}": enclosing(map_, away, percent / 100) for percent in (50, 90, 95, 99)}
    found["rms_radius"] = np.sqrt((p * away**2).sum())
    found["effective_area"] = np.exp(-xlogy(p, p).sum())
    held = np.concatenate([[0], np.cumsum(np.sort(p.ravel()))])
    found["gini"] = 1 - (held[1:] + held[:-1]).mean()
    row, column = (int(np.clip(round(c), 0, n - 1)) for c, n in zip(center, map_.shape, strict=True))
    found["luo_size"] = np.sqrt((map_ > 0.0455 * map_[row, column]).sum())
    mean_y, mean_x = (p * y).sum(), (p * x).sum()
    yy, xx, yx = ((p * one).sum() for one in ((y - mean_y) ** 2, (x - mean_x) ** 2, (y - mean_y) * (x - mean_x)))
    low, high = np.linalg.eigvalsh([[yy, yx], [yx, xx]])
    found["anisotropy"] = np.sqrt(high / low)
    found["orientation"] = np.degrees(np.arctan2(2 * yx, xx - yy)) / 2
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_size_is_measured_to_half_a_pixel(case: Case) -> None:
    map_ = case.map()
    sample = kept(map_, case.center).all()
    expected = by_pixels(map_, case.center)
    if case.sigma[0] == case.sigma[1]:
        del expected["orientation"]  # of a round field, anything
    for name, right in expected.items():
        slack = 0.5 if name in ("r50", "r90", "r95", "r99", "luo_size") else 0
        assert float(MEASURES[name].of(sample)) == pytest.approx(right, rel=0.01, abs=slack), name
    y, x = (abs(np.arange(length) - middle) for length, middle in zip(map_.shape, case.center, strict=True))
    for percent in (50, 99):
        half_side = np.sqrt(float(MEASURES[f"square{percent}"].of(sample)) * map_.size) / 2
        right = enclosing(map_, np.maximum(y[:, None], x), percent / 100)
        assert half_side == pytest.approx(right, abs=0.5)


@pytest.mark.parametrize("sigma", [1, 2, 5, 13, 30, 80])
@pytest.mark.parametrize("middle", [260.0, 260.5, 259.8])
def test_widths_and_fits_of_every_size(sigma: float, middle: float) -> None:
    sample = kept(Case((sigma, sigma), center=(330.0, middle)).map(), (330.0, 260.0)).all()
    for axis in "xy":
        assert float(MEASURES[f"fwhm_{axis}"].of(sample)) == pytest.approx(2.3548 * sigma, rel=0.01, abs=0.3)
        assert float(MEASURES[f"sigma_{axis}"].of(sample)) == pytest.approx(sigma, rel=0.002)
        assert float(MEASURES[f"gaussian_{axis}"].of(sample)) > 0.9999
    assert float(MEASURES["gaussian_map"].of(sample)) > 0.9999


def test_full_size() -> None:
    """Small and large Gaussians at 3328x2560, by closed forms."""
    y, x = np.arange(3328) - 1666.0, np.arange(2560) - 1282.0
    for sigma in (5, 200):
        sample = kept(np.exp(-(y[:, None] ** 2 + x**2) / (2 * sigma**2)), (1666.0, 1282.0)).all()
        found = {name: float(MEASURES[name].of(sample)) for name in ("r50", "r90", "fwhm_x", "effective_area")}
        assert found["r50"] == pytest.approx(1.17741 * sigma, rel=0.01, abs=0.2)
        assert found["r90"] == pytest.approx(2.14597 * sigma, rel=0.01, abs=0.2)
        assert found["fwhm_x"] == pytest.approx(2.35482 * sigma, rel=0.01)
        assert found["effective_area"] == pytest.approx(2 * np.pi * np.e * sigma**2, rel=0.01)


def test_any_map_is_enclosed_to_half_a_pixel() -> None:
    """Whatever lies where: the radius is in the ring of the pixel that reaches the share."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        center = tuple(rng.uniform(-5, 305, 2))
        map_ = np.zeros((300, 290))
        map_[tuple(rng.integers(0, 290, (2, 6)))] = rng.random(6)
        sample = kept(map_, center).all()
        y, x = (np.arange(length) - middle for length, middle in zip(map_.shape, center, strict=True))
        for percent in (50, 90, 99):
            right = enclosing(map_, np.hypot(y[:, None], x), percent / 100)
            assert float(MEASURES[f"r{percent}"].of(sample)) == pytest.approx(right, abs=0.5)


def test_inside_the_field_to_the_pixel() -> None:
    map_ = np.random.default_rng(0).random((660, 520))
    box = Box(200.5, 101.2, 430.0, 301.5)  # pixels 201 to 430, of which the last is cut, and 101 to 301
    found = float(MEASURES["inside_field"].of(kept(map_, (330.0, 260.0), field_box=box).all()))
    assert found == pytest.approx(map_[201:431, 101:302].sum() / map_.sum(), rel=1e-6)


def test_a_field_below_the_resolution_is_withheld() -> None:
    """A small field far from the unit lies in large blocks; its curves and rings are as fine as ever."""
    case = Case((2, 2), off=(120.0, -90.0))
    seen = kept(case.map(), case.center)
    for name, measure in MEASURES.items():
        expected = measure.part != "blocks" and name not in (
            "on_tissue",
            "tissue_excess",
            *SIDE_MEASURES,
            "variability",
        )
        assert np.isfinite(measure.of(seen.all())) == expected, name
    assert float(MEASURES["r50"].of(seen.all())) == pytest.approx(150, rel=0.01)
    assert float(MEASURES["fwhm_x"].of(seen.all())) == pytest.approx(4.71, abs=0.1)


def test_a_comb_does_not_make_a_field_narrow() -> None:
    """Strides print a comb on a curve, of which one tooth is as wide as a pixel."""
    x = np.arange(2560)
    smooth_curve = np.exp(-((x - 1282.0) ** 2) / (2 * 12.0**2))
    comb = smooth_curve * np.where(x % 4 == 2, 4, 0.01)
    for curve in (smooth_curve, comb):
        assert size.width_at_half(curve, size.width_stretch(curve)) == pytest.approx(2.3548 * 12, rel=0.03)
    assert size.width_at_half(comb, 1) < 3


@pytest.mark.parametrize("crops", [True, False])
def test_measures_of_a_run_are_those_of_its_mean_map(crops: bool) -> None:
    """What is compared comes from sums per image; the mean map, summed up here pixel by pixel, has to give the same."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 7, 2, 3), nn.ReLU(), nn.Conv2d(4, 4, 5, 2, 2), nn.ReLU(), nn.Conv2d(4, 4, 3))
    images = from_arrays([np.random.default_rng(seed).standard_normal((1, 290, 301)) for seed in range(3)])
    result = erf.compute(net.double(), images, layer="4", crop=crops, device="cpu")
    origin, mean = result.provenance, result.statistics().mean.astype(np.float64)
    assert (origin.crop == (0, 0, 290, 301)) != crops
    sample, pixels = observe(result).all(), by_pixels(mean, origin.unit_center)
    box = {"field_box": origin.field_box(), "field_size": origin.field_size}
    summed = observations(mean[None], (origin.small_block, 1), origin.unit_center, **box).all()
    for name, measure in MEASURES.items():
        found = float(measure.of(sample))
        if name in pixels and measure.part != "blocks":
            assert found == pytest.approx(pixels[name], rel=1e-3, abs=0.5 if name.startswith("r") else 1e-3), name
        if measure.group != "dynamics" and measure.part != "tissue":
            assert found == pytest.approx(float(measure.of(summed)), rel=1e-4), name


def test_a_signal_has_measures_along_it_only() -> None:
    arrays = [np.full((1, 1, 32), value, np.float32) for value in (1, 2)]
    found = erf.compute(
        nn.Conv1d(1, 1, 5, 1, 2),
        from_arrays(arrays),
        layer="output",
        arguments=erf.Arguments(signal=True),
        device="cpu",
    )
    names = ("sigma_x", "sigma_y", "gaussian_y", "gaussian_map")
    values = {name: float(MEASURES[name].of(observe(found).all())) for name in names}
    assert 0 < values["sigma_x"] < 5
    assert all(np.isnan(values[name]) for name in names[1:])
