"""Bootstrap over images or patients (Efron, Tibshirani 1993).

SciPy resamples; a sample is represented by the count of each image, so that no map is copied. Patients are resampled
whole if every image names one, stratified by their lateralities, like the images of a run.
"""

import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np
from numpy.typing import NDArray

from erf.measures import Observations, Sample, smooth
from erf.results.grid import Array
from erf.uncertainty.resampling import Resampling

_SCIPY = {"bca": "BCa", "percentile": "percentile"}
_BATCH = 250


def bootstrap_interval(
    drawn_from: Sequence[Observations], values: Callable[[list[Array]], Array], resampling: Resampling
) -> tuple[Array, Array]:
    """Bootstrap intervals of K statistics.

    Args:
        drawn_from: Observations of one or more ERFs, resampled independently.
        values: Function of the counts (..., N) of the images of each ERF that returns the statistics (K, ...).
        resampling: Level, method, number of resamples, and seed.

    Returns:
        Lower and upper limits, each (K,); NaN if a stratum has fewer than two members.
    """
    from scipy.stats import bootstrap  # takes a second, and this module is also loaded without resampling

    point = values([np.ones(len(observed)) for observed in drawn_from])
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
        return nothing, nothing
    # BCa warns of constant values, which are handled below; filters are not for threads, where percentiles are needed.
    quiet = warnings.catch_warnings(action="ignore") if resampling.method == "bca" else nullcontext()
    with quiet, np.errstate(invalid="ignore", divide="ignore"):
        result = bootstrap(
            tuple(members for _, members in strata),
            statistic,
            vectorized=True,
            confidence_level=resampling.level,
            n_resamples=resampling.resamples,
            batch=_BATCH,
            method=_SCIPY[resampling.method],
            random_state=np.random.default_rng(resampling.seed),
        )
    fixed = np.ptp(np.asarray(result.bootstrap_distribution), axis=-1) <= 1e-12 * np.abs(point)
    low, high = (np.where(fixed, point, edge) for edge in result.confidence_interval)
    return low, high


def bands(
    observed: Observations, resampling: Resampling | None = None, curve: str = "across_rows", stretch: int = 1
) -> tuple[Array, Array]:
    """Pointwise bootstrap interval of a curve's means over bins, as shares of the curve's total.

    Args:
        observed: Observations of an ERF.
        resampling: Level, number of resamples and seed; percentile intervals by default.
        curve: `across_rows` or `across_columns`.
        stretch: Bin width in pixels.

    Returns:
        Lower and upper limits of the bins, see `erf.measures.smooth`.
    """

    def shares(counts: list[Array]) -> Array:
        curves = getattr(Sample(observed, counts[0]), curve)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.moveaxis(smooth(curves, stretch)[1] / curves.sum(-1, keepdims=True), -1, 0)

    return bootstrap_interval([observed], shares, resampling or Resampling(method="percentile"))


def _counts(rows: NDArray[np.intp], length: int) -> Array:
    """Counts of the numbers below `length` along the last axis."""
    flat = rows.reshape(-1, rows.shape[-1])
    offsets = np.arange(len(flat))[:, None] * length
    counts = np.bincount((flat + offsets).ravel(), minlength=len(flat) * length)
    return counts.reshape(*rows.shape[:-1], length).astype(np.float64)
