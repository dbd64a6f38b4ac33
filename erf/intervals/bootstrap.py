"""Images, or patients, drawn again from those that a file keeps (Efron, Tibshirani 1993).

SciPy draws; what is drawn is how often each image counts, so that no map is ever copied. Patients are drawn whole where
every image names one, within the sides that they have, as the images of a run are.
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from erf.grid import Array
from erf.intervals.drawing import Drawing
from erf.measures import Observations, Sample

_SCIPY = {"bca": "BCa", "percentile": "percentile"}
_BATCH = 250


def bootstrap_interval(
    drawn_from: Sequence[Observations], values: Callable[[list[Array]], Array], drawing: Drawing
) -> tuple[Array, Array]:
    """(low, high), each (K,), of K values (K, ...) of how often each image of some ERFs was drawn (..., N)."""
    from scipy.stats import bootstrap  # takes a second, and runs that draw nothing load this module

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
    with warnings.catch_warnings(), np.errstate(invalid="ignore", divide="ignore"):
        warnings.simplefilter("ignore")  # about values that do not vary, which are dealt with below
        result = bootstrap(
            tuple(members for _, members in strata),
            statistic,
            vectorized=True,
            confidence_level=drawing.level,
            n_resamples=drawing.resamples,
            batch=_BATCH,
            method=_SCIPY[drawing.method],
            random_state=np.random.default_rng(drawing.seed),
        )
    fixed = np.ptp(np.asarray(result.bootstrap_distribution), axis=-1) <= 1e-12 * np.abs(point)
    low, high = (np.where(fixed, point, edge) for edge in result.confidence_interval)
    return low, high


def bands(observed: Observations, drawing: Drawing | None = None, curve: str = "across_rows") -> tuple[Array, Array]:
    """Pointwise interval (low, high) of `across_rows` or `across_columns`, as shares of its total."""

    def shares(counts: list[Array]) -> Array:
        curves = getattr(Sample(observed, counts[0]), curve)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.moveaxis(curves / curves.sum(-1, keepdims=True), -1, 0)

    return bootstrap_interval([observed], shares, drawing or Drawing(method="percentile"))


def _counts(rows: NDArray[np.intp], length: int) -> Array:
    """How often each of `length` numbers occurs along the last axis."""
    flat = rows.reshape(-1, rows.shape[-1])
    offsets = np.arange(len(flat))[:, None] * length
    counts = np.bincount((flat + offsets).ravel(), minlength=len(flat) * length)
    return counts.reshape(*rows.shape[:-1], length).astype(np.float64)
