"""Uncertainty of measures: images, or patients, are drawn again from those that a file keeps.

Bootstrap and permutation tests are SciPy's; what is drawn is how often each image counts, so that no map is ever
copied. Patients are drawn whole where every image names one. Draws are stratified by the sides that a patient or image
has, as the images of a run are. Everything is the same again for the same seed.

Efron, Tibshirani. An introduction to the bootstrap (1993): percentile and BCa intervals; the latter correct for bias
and skewness to second order.
"""

import math
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap, norm, permutation_test

from erf.errors import InputError
from erf.grid import Array
from erf.measures import MEASURES, TWO_SIDED, Measure, Observations, Sample, interleaved

METHODS = {"bca": "BCa", "percentile": "percentile"}
RESAMPLES = 2000
LEVEL = 0.95

_BATCH = 250
_TIE_DIGITS = 9


@dataclass(frozen=True)
class Interval:
    """A value and where it may lie; NaN where nothing can be said, as with a single image."""

    value: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Difference(Interval):
    """How much larger a measure is for the second of two ERFs."""

    p: float
    """Two-sided: 1 less the level at which the interval would just touch 0; at least 2 over the number of draws, and
    over the number of different draws that there are of few images."""
    paired: bool
    """Whether both were measured on the same images, which were then drawn together."""


@dataclass(frozen=True)
class Drawing:
    """How images are drawn again."""

    level: float = LEVEL
    resamples: int = RESAMPLES
    method: str = "bca"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"interval '{self.method}' not known; expected one of {', '.join(METHODS)}")
        if not 0 < self.level < 1 or self.resamples < 100:
            raise InputError(
                f"level {self.level:g} from {self.resamples} draws; expected a level between 0 and 1, 100 draws or more"
            )


@dataclass(frozen=True)
class Precision:
    """When there are images enough: the interval's half width over the value is at most `relative`.

    An interval that was looked at again and again until it was narrow is a little too narrow; the rounds in which it is
    looked at grow by half, so that there are few.
    """

    relative: float
    measure: str = "r50"
    drawing: Drawing = Drawing(resamples=1000)

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise InputError(f"no measure '{self.measure}' with an interval; expected one of {', '.join(MEASURES)}")
        if not 0 < self.relative < 1:
            raise InputError(
                f"half width {self.relative:g} of the value; expected a share between 0 and 1, such as 0.02"
            )

    def estimate(self, observed: Observations) -> Interval:
        """The measure with its interval."""
        return estimate(observed, [MEASURES[self.measure]], self.drawing)[self.measure]

    def is_reached(self, interval: Interval) -> bool:
        """Whether an interval is narrow enough; never where there is none."""
        return bool(interval.half_width <= self.relative * abs(interval.value))


def estimate(
    observed: Observations, measures: Sequence[Measure], drawing: Drawing | None = None
) -> dict[str, Interval]:
    """Each measure with its interval over images."""
    return contrast([observed], measures, drawing)[0][0]


def contrast(
    observed: Sequence[Observations], measures: Sequence[Measure], drawing: Drawing | None = None
) -> tuple[list[dict[str, Interval]], list[dict[str, Difference]]]:
    """Measures of ERFs of the same images, in any order, and their differences to the first, paired.

    The images are drawn once for all of them.
    """
    drawing = drawing or Drawing()
    first, *others = observed
    together = [first, *(other.pick(same_order(other, first)) for other in others)]
    names, count = [measure.name for measure in measures], len(measures)

    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def values(counts: list[Array]) -> Array:
            rows = np.concatenate(list(pool.map(lambda seen: _measured(seen, measures, counts[0]), together)))
            return np.concatenate([rows, rows[count:] - np.tile(rows[:count], (len(others),) + (1,) * (rows.ndim - 1))])

        point, low, high, p = _interval_and_p([first], values, drawing)
    rows = np.stack([point, low, high, p], -1).reshape(-1, count, 4)
    intervals = [
        {name: Interval(*edges[:3]) for name, edges in zip(names, table, strict=True)} for table in rows.tolist()
    ]
    return intervals[: len(observed)], [_differences(names, table, paired=True) for table in rows[len(observed) :]]


def vary(
    drawn_from: Sequence[Observations], values: Callable[[list[Array]], Array], drawing: Drawing
) -> list[Interval]:
    """Intervals of K values (K, ...) of how often each image of some ERFs was drawn, (..., N) for each."""
    point, low, high, _ = _interval_and_p(drawn_from, values, drawing)
    return [Interval(*edges) for edges in np.stack([point, low, high], -1).tolist()]


def compare(
    one: Observations, two: Observations, measures: Sequence[Measure], drawing: Drawing | None = None
) -> dict[str, Difference]:
    """Differences of measures, two minus one; paired where both have the same images."""
    drawing = drawing or Drawing()
    if are_paired(one, two):
        return contrast([one, two], measures, drawing)[1][0]

    def values(counts: list[Array]) -> Array:
        return _measured(two, measures, counts[1]) - _measured(one, measures, counts[0])

    rows = np.stack(_interval_and_p([one, two], values, drawing), -1)
    return _differences([measure.name for measure in measures], rows, paired=False)


def _differences(names: Sequence[str], rows: Array, paired: bool) -> dict[str, Difference]:
    """From rows (K, 4) of point, low, high and p."""
    return {
        name: Difference(point, low, high, p, paired)
        for name, (point, low, high, p) in zip(names, rows.tolist(), strict=True)
    }


def are_paired(one: Observations, two: Observations) -> bool:
    """Whether two ERFs are of the same images, each of which is there once."""
    return sorted(one.keys) == sorted(two.keys) and len(set(one.keys)) == len(one)


def same_order(other: Observations, first: Observations) -> NDArray[np.intp]:
    """Rows of one ERF's images in the order of another's."""
    rows = {key: row for row, key in enumerate(other.keys)}
    return np.array([rows[key] for key in first.keys])


def _measured(observed: Observations, measures: Sequence[Measure], counts: Array) -> Array:
    """(K, ...), measures of a draw of images."""
    sample = Sample(observed, counts)
    return np.stack([np.asarray(measure.of(sample)) for measure in measures])


def _interval_and_p(
    drawn_from: Sequence[Observations], values: Callable[[list[Array]], Array], drawing: Drawing
) -> tuple[Array, Array, Array, Array]:
    """(point, low, high, p of zero), each (K,)."""
    point = values([np.ones(len(observed)) for observed in drawn_from])
    draws, low, high = _bootstrap(drawn_from, values, point, drawing)
    acceleration = _acceleration(drawn_from, values) if drawing.method == "bca" else None
    least = 2 / min(drawing.resamples + 1, _different_draws(drawn_from))
    p = np.where(np.isfinite(low), np.clip(_p_of_zero(draws, point, acceleration), min(least, 1), 1), np.nan)
    return point, low, high, p


def left_right_test(observed: Observations, measure: Measure, drawing: Drawing | None = None) -> float:
    """The p value of a left-right measure if sides did not matter: sides are dealt out to the images anew.

    Raises `InputError` for a measure that does not compare sides; NaN where a side has fewer than two images.
    """
    if measure.name not in TWO_SIDED:
        raise InputError(f"measure '{measure.name}' does not compare sides; expected one of {', '.join(TWO_SIDED)}")
    drawing = drawing or Drawing()
    rows = [np.flatnonzero(observed.sides == side) for side in ("left", "right")]
    if min(map(len, rows)) < 2:
        return float("nan")

    scale = abs(float(measure.of(observed.all()))) or 1.0

    def statistic(left: NDArray[np.intp], right: NDArray[np.intp], axis: int) -> Array:
        dealt = {"left": _counts(left, len(observed)), "right": _counts(right, len(observed))}
        values = np.asarray(measure.of(Sample(observed, dealt["left"] + dealt["right"], dealt)))
        return np.asarray(np.round(values / scale, _TIE_DIGITS))  # the same sides dealt again must tie

    result = permutation_test(
        tuple(rows),
        statistic,
        vectorized=True,
        n_resamples=drawing.resamples,
        batch=_BATCH,
        alternative="two-sided" if measure.name == "lean" else "greater",
        random_state=np.random.default_rng(drawing.seed),
    )
    return float(result.pvalue)


def bands(observed: Observations, drawing: Drawing | None = None, curve: str = "across_rows") -> tuple[Array, Array]:
    """Pointwise interval (low, high) of `across_rows` or `across_columns`, as shares of its total."""

    def shares(counts: list[Array]) -> Array:
        curves = getattr(Sample(observed, counts[0]), curve)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.moveaxis(curves / curves.sum(-1, keepdims=True), -1, 0)

    point = shares([np.ones(len(observed))])
    _, low, high = _bootstrap([observed], shares, point, drawing or Drawing(method="percentile"))
    return low, high


def convergence(
    observed: Observations, measure: Measure, drawing: Drawing | None = None, points: int = 12
) -> list[tuple[int, Interval]]:
    """A measure and its interval on the first n images in the order of the draw, balanced over sides, for rising n."""
    order = interleaved(observed.sides)
    numbers = np.unique(np.geomspace(min(4, len(order)), len(order), points).round().astype(int))
    return [(int(n), estimate(observed.pick(order[:n]), [measure], drawing)[measure.name]) for n in numbers]


def _bootstrap(
    drawn_from: Sequence[Observations],
    values: Callable[[list[Array]], Array],
    point: Array,
    drawing: Drawing,
) -> tuple[Array, Array, Array]:
    """(draws (K, resamples), low (K,), high (K,)) of K values of the counts of each of `drawn_from`."""
    strata = [(number, members) for number, observed in enumerate(drawn_from) for members in observed.strata]
    groupings = [observed.grouping for observed in drawn_from]

    def statistic(*drawn: NDArray[np.intp], axis: int = -1) -> Array:
        counts = []
        for number, grouping in enumerate(groupings):
            groups = np.concatenate(
                [rows for (owner, _), rows in zip(strata, drawn, strict=True) if owner == number], -1
            )
            counts.append(_counts(groups.astype(np.intp), int(grouping.max()) + 1)[..., grouping])
        return values(counts)

    if min(len(members) for _, members in strata) < 2:
        nothing = np.full(point.shape, np.nan)
        return nothing[:, None], nothing, nothing
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore")  # about values that do not vary, which are dealt with below
        result = bootstrap(
            tuple(members for _, members in strata),
            statistic,
            vectorized=True,
            confidence_level=drawing.level,
            n_resamples=drawing.resamples,
            batch=_BATCH,
            method=METHODS[drawing.method],
            random_state=np.random.default_rng(drawing.seed),
        )
    draws = np.asarray(result.bootstrap_distribution)
    fixed = np.ptp(draws, axis=-1) <= 1e-12 * np.abs(point)
    low, high = (np.where(fixed, point, edge) for edge in result.confidence_interval)
    return draws, low, high


def _p_of_zero(draws: Array, point: Array, acceleration: Array | None) -> Array:
    """One less the level of the interval that ends at 0: of percentiles, or with an acceleration, BCa."""
    resamples = draws.shape[-1]

    def place(value: Array) -> Array:
        below = (draws < value[:, None]).sum(-1) + (draws == value[:, None]).sum(-1) / 2
        return norm.ppf(np.clip(below, 0.5, resamples - 0.5) / resamples)

    z = place(np.zeros(len(point)))
    if acceleration is not None:
        bias = place(point)
        with np.errstate(invalid="ignore", divide="ignore"):
            z = (z - bias) / (1 + acceleration * (z - bias)) - bias
    return np.asarray(2 * norm.sf(np.abs(z)))


def _different_draws(drawn_from: Sequence[Observations]) -> int:
    """In how many ways groups can be drawn again, order aside."""
    sizes = [len(members) for observed in drawn_from for members in observed.strata]
    return math.prod(math.comb(2 * size - 1, size) for size in sizes)


def _acceleration(drawn_from: Sequence[Observations], values: Callable[[list[Array]], Array]) -> Array:
    """Of BCa intervals, from values (K,) that leave out one group at a time (Efron, Tibshirani 1993, section 14.3)."""
    cubes, squares = 0.0, 0.0
    groupings = [observed.grouping for observed in drawn_from]
    for number, observed in enumerate(drawn_from):
        for members in observed.strata:
            counts = [np.ones((len(members), len(grouping))) for grouping in groupings]
            counts[number] = (members[:, None] != groupings[number]).astype(np.float64)
            without = values(counts)
            influence = (len(members) - 1) * (without.mean(-1, keepdims=True) - without) / len(members)
            cubes, squares = cubes + (influence**3).sum(-1), squares + (influence**2).sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.nan_to_num(cubes / (6 * np.asarray(squares) ** 1.5)))


def _counts(rows: NDArray[np.intp], length: int) -> Array:
    """How often each of `length` numbers occurs along the last axis."""
    flat = rows.reshape(-1, rows.shape[-1])
    offsets = np.arange(len(flat))[:, None] * length
    counts = np.bincount((flat + offsets).ravel(), minlength=len(flat) * length)
    return counts.reshape(*rows.shape[:-1], length).astype(np.float64)
