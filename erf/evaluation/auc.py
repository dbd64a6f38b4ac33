"""Area under the ROC curve, with intervals and paired comparisons.

The bootstrap draws images, or patients, within the positive and within the negative ones, and takes percentiles, as
Taha et al. 2022 (HCT) do with 10,000 draws. DeLong, DeLong, Clarke-Pearson (Biometrics 1988) give the variance in
closed form; it takes images for independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata
from sklearn.metrics import roc_auc_score

from erf.errors import InputError

DRAWS = 10_000
LEVEL = 0.95

_BATCH = 500

Scores = NDArray[np.float64]
Truth = NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """A value and its intervals at the level 0.95."""

    value: float
    low: float
    high: float
    """Percentile bootstrap."""
    delong_low: float
    delong_high: float
    positives: int
    negatives: int


@dataclass(frozen=True)
class Gain:
    """How much larger the second of two values is, on the same images."""

    value: float
    low: float
    high: float
    p: float
    """Two-sided, of DeLong's test."""
    p_bootstrap: float
    """Two-sided; at least 2 over the number of draws."""


def auc(truth: Truth, scores: Scores) -> float:
    """Probability that a positive image scores above a negative one, ties counting half."""
    _check(truth, scores)
    return float(roc_auc_score(truth, scores))


def estimate(
    truth: Truth, scores: Scores, patients: Sequence[str] | None = None, draws: int = DRAWS, seed: int = 0
) -> Estimate:
    """The AUC with intervals; with `patients`, whole patients are drawn."""
    value = auc(truth, scores)
    drawn = _draw(truth, [scores], patients, draws, seed)[0]
    low, high = _percentiles(drawn)
    variance = delong_covariance(truth, [scores])[0, 0]
    reach = float(norm.ppf((1 + LEVEL) / 2)) * np.sqrt(variance)
    near, far = (float(np.clip(value + sign * reach, 0, 1)) for sign in (-1, 1))
    return Estimate(value, low, high, near, far, int(truth.sum()), int((~truth).sum()))


def gain(
    truth: Truth,
    first: Scores,
    second: Scores,
    patients: Sequence[str] | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Gain:
    """The second AUC less the first, on images that both networks have seen, which are drawn together."""
    value = auc(truth, second) - auc(truth, first)
    before, after = _draw(truth, [first, second], patients, draws, seed)
    low, high = _percentiles(after - before)
    covariance = delong_covariance(truth, [first, second])
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    p = float(2 * norm.sf(abs(value) / np.sqrt(variance))) if variance > 0 else float(value == 0)
    sides = (float(np.mean(after - before <= 0)), float(np.mean(after - before >= 0)))
    p_bootstrap = min(1.0, max(2 * min(sides), 2 / draws))
    return Gain(value, low, high, p, p_bootstrap)


def delong_covariance(truth: Truth, scores: Sequence[Scores]) -> NDArray[np.float64]:
    """Covariance (k, k) of the AUCs of k networks on the same images."""
    _check(truth, scores[0])
    placements = [_placements(truth, one) for one in scores]
    parts = []
    for group, count in enumerate((int(truth.sum()), int((~truth).sum()))):
        values = np.stack([pair[group] for pair in placements])
        parts.append(np.atleast_2d(np.cov(values)) / count if count > 1 else np.zeros((len(scores), len(scores))))
    return np.asarray(parts[0] + parts[1])


def _placements(truth: Truth, scores: Scores) -> tuple[Scores, Scores]:
    """Share of the negatives below each positive, and of the positives above each negative; ties count half."""
    positive, negative = scores[truth], scores[~truth]
    together = rankdata(np.concatenate([positive, negative]))
    above = (together[: len(positive)] - rankdata(positive)) / len(negative)
    below = 1 - (together[len(positive) :] - rankdata(negative)) / len(positive)
    return above, below


def _draw(
    truth: Truth, scores: Sequence[Scores], patients: Sequence[str] | None, draws: int, seed: int
) -> list[NDArray[np.float64]]:
    """AUCs of the same draws for each network.

    A draw counts how often each image is in it; the AUC of weighted images follows from a single sorting.
    """
    rng = np.random.default_rng(seed)
    found: list[list[NDArray[np.float64]]] = [[] for _ in scores]
    groups = _strata(truth, patients)
    for start in range(0, draws, _BATCH):
        counts = np.zeros((min(_BATCH, draws - start), len(truth)))
        for members in groups:
            drawn = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), len(counts))
            for column, images in enumerate(members):
                counts[:, images] = drawn[:, column, None]
        for own, one in zip(found, scores, strict=True):
            own.append(_weighted_auc(truth, one, counts))
    return [np.concatenate(own) for own in found]


def _strata(truth: Truth, patients: Sequence[str] | None) -> list[list[NDArray[np.intp]]]:
    """What is drawn, in groups that keep their size: images by truth, or patients by whether any is positive."""
    if patients is None:
        return [[np.array([place]) for place in np.flatnonzero(truth == kind)] for kind in (True, False)]
    names = np.asarray(patients)
    members = [np.flatnonzero(names == name) for name in dict.fromkeys(patients)]
    positive = [one for one in members if truth[one].any()]
    negative = [one for one in members if not truth[one].any()]
    return [group for group in (positive, negative) if group]


def _weighted_auc(truth: Truth, scores: Scores, counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """AUC (draws,) of images that count (draws, N) times each; NaN for a draw without positives or negatives."""
    values, level = np.unique(scores, return_inverse=True)
    positive, negative = (_by_level(counts * kind, level, len(values)) for kind in (truth, ~truth))
    below = np.cumsum(negative, axis=1) - negative / 2
    totals = positive.sum(axis=1) * negative.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((positive * below).sum(axis=1) / totals)


def _by_level(counts: NDArray[np.float64], level: NDArray[np.intp], levels: int) -> NDArray[np.float64]:
    summed = np.zeros((levels, len(counts)))
    np.add.at(summed, level, counts.T)
    return summed.T


def _percentiles(drawn: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.nanpercentile(drawn, (50 * (1 - LEVEL), 50 * (1 + LEVEL)))
    return float(low), float(high)


def _check(truth: Truth, scores: Scores) -> None:
    if truth.dtype != np.bool_ or truth.shape != scores.shape or truth.ndim != 1:
        raise InputError(f"truth {truth.dtype} {truth.shape} and scores {scores.shape}; expected bool and float, (N,)")
    if truth.all() or not truth.any():
        raise InputError(f"{int(truth.sum())} positive of {len(truth)} images; an AUC needs both kinds")
