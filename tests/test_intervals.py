"""Intervals against theory, simulation and SciPy on plain numbers."""

import itertools

import numpy as np
import pytest

import erf
from erf.intervals import Drawing, Observations, bands, compare, convergence, estimate, left_right_test
from erf.measures import MEASURES, Grid, interleaved

QUICK = Drawing(resamples=400)
SIZE, BLOCK = (48, 40), 2
CENTER = (24.0, 20.0)


def blobs(
    rng: np.random.Generator, count: int, wobble: float = 3.0, lean: float = 0.0, patients: int = 0, sizes: float = 0.2
) -> Observations:
    """Gaussian maps whose place and size vary from image to image, alternately of left and right breasts."""
    sides = np.array(["left", "right"] * count)[:count]
    patient = np.arange(count) % patients if patients else np.arange(count)
    shifts = rng.normal(0, wobble, count)[patient]
    centers = CENTER[1] + shifts + np.where(sides == "right", lean, -lean)
    sigmas = 6 * np.exp(rng.normal(0, sizes, count))[patient]
    y, x = np.arange(SIZE[0]), np.arange(SIZE[1])
    across_rows = np.exp(-((x - centers[:, None]) ** 2) / (2 * sigmas[:, None] ** 2))
    across_columns = np.exp(-((y - CENTER[0]) ** 2) / (2 * sigmas[:, None] ** 2))
    across_rows /= across_rows.sum(1, keepdims=True)
    across_columns /= across_columns.sum(1, keepdims=True)
    small_rows, small_columns = (
        np.add.reduceat(curve, np.arange(0, curve.shape[1], BLOCK), axis=1) for curve in (across_rows, across_columns)
    )
    small = small_columns[:, :, None] * small_rows[:, None]
    names = np.array([str(index) for index in range(count)])
    groups = np.array([str(index) for index in patient])
    return Observations(Grid(SIZE, BLOCK, CENTER), small, across_rows, across_columns, sides, groups, names)


def test_the_interval_of_a_mean_is_that_of_the_textbook() -> None:
    """The centroid of maps of equal mass is the mean of their centroids: normal theory gives its interval."""
    seen = blobs(np.random.default_rng(0), 80, wobble=1.0)
    centers = seen.across_rows @ np.arange(SIZE[1])
    found = estimate(seen, [MEASURES["centroid_x"]], Drawing(resamples=4000))["centroid_x"]
    assert found.value == pytest.approx(centers.mean(), abs=1e-9)
    by_side = [centers[seen.sides == side] for side in ("left", "right")]
    error = np.sqrt(sum(side.var() / len(side) for side in by_side)) / 2  # the draw is stratified by side
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.06)  # of 4000 draws, about 2 %


@pytest.mark.parametrize("name", ["r50", "r90", "rms_radius", "fwhm_x", "effective_area", "shift_x", "lean"])
def test_nominal_95_percent_intervals_cover(name: str) -> None:
    """Simulated runs of 60 images from one population, whose own value is that of 20,000 images."""
    measure = MEASURES[name]
    runs, inside = 600, 0
    truth = float(measure.of(blobs(np.random.default_rng(99), 20_000, lean=1.0).all()))
    rng = np.random.default_rng(5)
    for run in range(runs):
        found = estimate(blobs(rng, 60, lean=1.0), [measure], Drawing(resamples=300, method="percentile", seed=run))[
            name
        ]
        inside += found.low <= truth <= found.high
    # 600 runs tell a coverage to 0.9 % (one standard error).
    assert 0.93 - 0.009 <= inside / runs <= 0.97 + 0.009


def test_patients_are_drawn_whole() -> None:
    rng = np.random.default_rng(1)
    clustered = blobs(rng, 80, patients=10, wobble=3.0).pick(rng.permutation(80))
    alone = clustered.pick(np.arange(80))
    alone = type(alone)(**{**vars(alone), "groups": alone.keys})
    measure = [MEASURES["shift_x"]]
    wide, narrow = (estimate(seen, measure, QUICK)["shift_x"].half_width for seen in (clustered, alone))
    # Eight images of a patient share a place, so ten patients tell as much as ten images: sqrt(8) wider.
    assert wide / narrow == pytest.approx(np.sqrt(8), rel=0.35)


@pytest.mark.parametrize("method", ["bca", "percentile"])
def test_the_same_seed_gives_the_same_interval(method: str) -> None:
    seen = blobs(np.random.default_rng(0), 12)
    measures = [MEASURES["r50"], MEASURES["lean"]]
    one, two, other = (estimate(seen, measures, Drawing(resamples=200, method=method, seed=seed)) for seed in (3, 3, 4))
    assert one == two
    assert one != other
    assert all(interval.low < interval.value < interval.high for interval in one.values())


def test_what_does_not_vary_has_an_interval_of_no_width() -> None:
    seen = blobs(np.random.default_rng(0), 10, wobble=0, sizes=0)
    found = estimate(seen, [MEASURES["r50"], MEASURES["inside_field"]], QUICK)
    for interval in found.values():
        assert interval.low == interval.value == interval.high


def test_a_single_image_has_no_interval() -> None:
    found = estimate(blobs(np.random.default_rng(0), 1), [MEASURES["r50"], MEASURES["lean"]], QUICK)
    assert np.isfinite(found["r50"].value)
    assert np.isnan([found["r50"].low, found["r50"].high, found["lean"].value]).all()


def test_pairing_removes_what_both_share() -> None:
    seen = blobs(np.random.default_rng(0), 40, sizes=0.4)
    wider = blobs(np.random.default_rng(0), 40, sizes=0.4, wobble=3.5)
    shuffled = wider.pick(np.random.default_rng(1).permutation(40))
    paired = compare(seen, shuffled, [MEASURES["rms_radius"]], QUICK)["rms_radius"]
    assert paired.paired
    stranger = type(wider)(**{**vars(wider), "keys": np.array([f"other {key}" for key in wider.keys])})
    unpaired = compare(seen, stranger, [MEASURES["rms_radius"]], QUICK)["rms_radius"]
    assert not unpaired.paired
    assert paired.value == pytest.approx(unpaired.value)
    assert paired.half_width < 0.5 * unpaired.half_width
    assert paired.p < 0.05 < unpaired.p


def test_p_values_of_differences_are_uniform_without_a_difference() -> None:
    rng = np.random.default_rng(0)
    found = [
        compare(blobs(rng, 30), _renamed(blobs(rng, 30)), [MEASURES["r50"]], Drawing(resamples=200))["r50"].p
        for _ in range(120)
    ]
    # Of 120 draws, 5 % are 6 +- 2.4 and a half are 60 +- 5.5.
    assert 1 <= np.sum(np.array(found) < 0.05) <= 14
    assert 43 <= np.sum(np.array(found) < 0.5) <= 77


@pytest.mark.parametrize("method", ["bca", "percentile"])
@pytest.mark.parametrize("name", ["r50", "gaussian_x", "lean"])
def test_the_p_value_is_where_the_interval_ends(method: str, name: str) -> None:
    one, two = (blobs(np.random.default_rng(seed), 30, sizes=0.3) for seed in (0, 4))
    found = compare(one, two, [MEASURES[name]], Drawing(resamples=3000, method=method))[name]
    assert 0.01 < found.p < 0.999
    at_p = compare(one, two, [MEASURES[name]], Drawing(level=1 - found.p, resamples=3000, method=method))[name]
    nearest = min(abs(at_p.low), abs(at_p.high))
    assert nearest < 0.02 * found.half_width  # of 3000 draws, one or two lie between


def _renamed(seen: Observations) -> Observations:
    return type(seen)(**{**vars(seen), "keys": np.array([f"other {key}" for key in seen.keys])})


@pytest.mark.parametrize("name", ["lean", "separation", "left_right_tv", "left_right_emd"])
def test_sides_that_differ_and_sides_that_do_not(name: str) -> None:
    rng = np.random.default_rng(0)
    differ = left_right_test(blobs(rng, 30, lean=3.0), MEASURES[name], QUICK)
    assert differ <= 0.01
    alike = [left_right_test(blobs(rng, 20), MEASURES[name], Drawing(resamples=200, seed=run)) for run in range(60)]
    # Of 60 uniform p values, 5 % are 3 +- 1.7 and a half are 30 +- 3.9.
    assert np.sum(np.array(alike) < 0.05) <= 9
    assert 18 <= np.sum(np.array(alike) < 0.5) <= 42


def test_without_both_sides_there_is_no_test() -> None:
    seen = blobs(np.random.default_rng(0), 10)
    left = seen.pick(np.flatnonzero(seen.sides == "left"))
    assert np.isnan(left_right_test(left, MEASURES["lean"], QUICK))
    with pytest.raises(erf.InputError, match="measure 'r50' does not compare sides"):
        left_right_test(seen, MEASURES["r50"], QUICK)


def test_bands_hold_the_curves_and_narrow_with_images() -> None:
    few, many = (blobs(np.random.default_rng(0), count) for count in (10, 160))
    widths = []
    for seen in (few, many):
        low, high = bands(seen)
        curve = seen.all().across_rows / seen.all().across_rows.sum()
        assert (low <= curve + 1e-12).all()
        assert (curve <= high + 1e-12).all()
        widths.append((high - low).max())
    assert widths[1] / widths[0] == pytest.approx(1 / 4, rel=0.4)


def test_convergence() -> None:
    seen = blobs(np.random.default_rng(0), 128)
    points = convergence(seen, MEASURES["r50"], QUICK)
    assert points[0][0] == 4
    assert points[-1][0] == 128
    assert points[-1][1] == estimate(seen.pick(interleaved(seen.sides)), [MEASURES["r50"]], QUICK)["r50"]
    halves = {number: interval.half_width for number, interval in points}
    numbers = sorted(halves)
    # Error falls with the root of the number.
    assert halves[128] / halves[numbers[len(numbers) // 2]] == pytest.approx(
        np.sqrt(numbers[len(numbers) // 2] / 128), rel=0.5
    )


def test_interleaved_beginnings_are_balanced() -> None:
    order = interleaved(np.array(["left"] * 5 + ["right"] * 3))
    sides = np.array(["left"] * 5 + ["right"] * 3)[order]
    assert sides[:6].tolist() == ["left", "right"] * 3
    assert sorted(order) == list(range(8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "t"}, "interval 't' not known; expected one of bca, percentile"),
        ({"level": 95}, "level 95 from 2000 draws; expected a level between 0 and 1"),
        ({"resamples": 10}, "from 10 draws"),
    ],
)
def test_what_cannot_be_drawn_is_told(options: dict[str, object], message: str) -> None:
    with pytest.raises(erf.InputError, match=message):
        Drawing(**options)


def test_few_images_cannot_give_small_p_values() -> None:
    rng = np.random.default_rng(0)
    one, two = blobs(rng, 6, sizes=0.01), blobs(rng, 6, sizes=0.01, wobble=40)
    found = compare(one, two, [MEASURES["rms_radius"]], Drawing(resamples=2000))["rms_radius"]
    # Three left and three right images can be drawn again in 10 ways each.
    assert found.p >= 2 / 100
    # Three of each can be dealt in 20 ways; the observed one and its mirror are as extreme.
    for _ in range(25):  # rounding must not tell a deal from its mirror
        for name in ("lean", "left_right_tv", "left_right_emd"):
            found = left_right_test(blobs(rng, 6, lean=20.0), MEASURES[name], QUICK)
            assert found == pytest.approx(2 / 20), name


def _lean(centers: np.ndarray, mass: np.ndarray, left: tuple[int, ...]) -> float:
    right = sorted(set(range(len(mass))) - set(left))
    at = [np.average(centers[list(side)], weights=mass[list(side)]) for side in (right, left)]
    return float(at[0] - at[1])


def test_every_deal_is_counted_once() -> None:
    """All 20 ways to deal three left and three right sides, one by one; rounding must not break ties.

    Centroids near 1280 that differ by a pixel leave few digits to their difference.
    """
    rng = np.random.default_rng(0)
    for _ in range(40):
        rows = 1 + 0.05 * rng.random((6, 2560))
        small, columns = np.ones((6, 2, 2)), np.ones((6, 3328))
        sides, names = np.array(["left"] * 3 + ["right"] * 3), np.arange(6).astype(str)
        seen = Observations(Grid((3328, 2560), 1664, (1666.0, 1282.0)), small, rows, columns, sides, names, names)
        centers = rows @ np.arange(2560) / rows.sum(1)
        mass = rows.sum(1)

        deals = np.array([_lean(centers, mass, left) for left in itertools.combinations(range(6), 3)])
        above, below = ((sign * (deals - deals[0]) > -1e-9).mean() for sign in (1, -1))
        assert left_right_test(seen, MEASURES["lean"], QUICK) == pytest.approx(min(1, 2 * min(above, below)))
