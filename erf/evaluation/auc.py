"""Area under the ROC curve, with intervals and paired comparisons.

The stratified percentile bootstrap resamples images, or patients, within the positive and within the negative ones, as
Taha et al. 2022 (HCT) do with 10,000 resamples. DeLong, DeLong, Clarke-Pearson (Biometrics 1988) give the variance in
closed form for images, Obuchowski (Biometrics 1997) for patients with several images each.

If the AUC is the same in all resamples, for example because all positive images score above all negative ones, both
methods give intervals of zero width. Then the interval of Newcombe (Statistics in Medicine 2006, method 5) is used,
which is valid for an AUC of 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm, rankdata, t
from sklearn.metrics import roc_auc_score

from erf.errors import InputError

DRAWS = 10_000
LEVEL = 0.95

_BATCH = 500
_ROUNDING = 1e-24
"""Variances below this are rounding errors and count as 0."""
_EDGE = 1e-9

Scores = NDArray[np.float64]
Truth = NDArray[np.bool_]


@dataclass(frozen=True)
class Estimate:
    """An AUC with its 95 % intervals."""

    value: float
    low: float
    high: float
    """Upper end of the percentile bootstrap interval."""
    delong_low: float
    delong_high: float
    positives: int
    negatives: int


@dataclass(frozen=True)
class Gain:
    """Difference of two AUCs on the same images, second minus first.

    If no resample would differ, the interval is NaN, or 0 to 0 for equal AUCs.
    """

    value: float
    low: float
    high: float
    p: float
    """Two-sided p-value of DeLong's test, or of Obuchowski's for patients."""
    p_bootstrap: float
    """Two-sided p-value of the bootstrap, at least 2 / resamples.

    Neither p-value is below the smallest that a permutation test of the labels could give.
    """


def auc(truth: Truth, scores: Scores) -> float:
    """Compute the probability that a positive image scores above a negative one; ties count half.

    Args:
        truth: whether each image is positive, (N,).
        scores: score of each image, (N,).

    Raises:
        InputError: shapes or types do not fit, or all images are of one kind.
    """
    _check(truth, scores)
    return float(roc_auc_score(truth, scores))


def estimate(
    truth: Truth, scores: Scores, patients: Sequence[str] | None = None, draws: int = DRAWS, seed: int = 0
) -> Estimate:
    """Estimate the AUC with intervals.

    Args:
        truth: whether each image is positive, (N,).
        scores: score of each image, (N,).
        patients: patient of each image; if given, whole patients are resampled.
        draws: number of bootstrap resamples.
        seed: seed of the resamples.
    """
    value = auc(truth, scores)
    variance = delong_covariance(truth, [scores], patients)[0, 0]
    if variance < _ROUNDING:
        low, high = near, far = _score_interval(value, *kinds_of(truth, patients))
    else:
        low, high = _percentiles(_draw(truth, [scores], patients, draws, seed)[0])
        reach = float(_reference(truth, patients).ppf((1 + LEVEL) / 2)) * math.sqrt(variance)
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
    """Estimate the second AUC minus the first, on the same images and with the same resamples for both.

    Args:
        truth: whether each image is positive, (N,).
        first: scores of the first network, (N,).
        second: scores of the second network, (N,).
        patients: patient of each image; if given, whole patients are resampled.
        draws: number of bootstrap resamples.
        seed: seed of the resamples.
    """
    value = auc(truth, second) - auc(truth, first)
    value = 0.0 if abs(value) < math.sqrt(_ROUNDING) else value
    change = _influence(truth, second) - _influence(truth, first)
    variance = _covariance(truth, change[None], patients)[0, 0]
    positives, negatives = kinds_of(truth, patients)
    least = 2 / math.comb(positives + negatives, positives)
    if variance < _ROUNDING:
        return Gain(value, 0, 0, 1, 1) if value == 0 else Gain(value, math.nan, math.nan, least, least)
    before, after = _draw(truth, [first, second], patients, draws, seed)
    low, high = _percentiles(after - before)
    p = 2 * _reference(truth, patients).sf(abs(value) / math.sqrt(variance))
    rises = (after - before)[np.isfinite(after - before)]
    p_bootstrap = max(2 * min(float(np.mean(rises <= 0)), float(np.mean(rises >= 0))), 2 / draws)
    return Gain(value, low, high, min(1.0, max(float(p), least)), min(1.0, max(p_bootstrap, least)))


def _reference(truth: Truth, patients: Sequence[str] | None) -> Any:
    """Reference distribution of AUC / standard error: normal as in DeLong's test; t for patients, who may be few."""
    groups = _strata(truth, patients)
    return norm if patients is None else t(max(sum(map(len, groups)) - len(groups), 1))


def _score_interval(value: float, positives: int, negatives: int) -> tuple[float, float]:
    """Score interval: the true AUCs that are just compatible with the observed one, each with its own variance."""
    z = float(norm.ppf((1 + LEVEL) / 2))
    more = (positives + negatives) / 2 - 1

    def beyond(true: float) -> float:
        spread = true * (1 - true) * (1 + more * ((1 - true) / (2 - true) + true / (1 + true)))
        return (true - value) ** 2 - z**2 * spread / (positives * negatives)

    low = brentq(beyond, 0, min(value, 1 - _EDGE)) if value > 0 else 0.0
    high = brentq(beyond, max(value, _EDGE), 1) if value < 1 else 1.0
    return float(low), float(high)


def delong_covariance(
    truth: Truth, scores: Sequence[Scores], patients: Sequence[str] | None = None
) -> NDArray[np.float64]:
    """Compute the covariance (k, k) of the AUCs of k networks on the same images.

    Args:
        truth: whether each image is positive, (N,).
        scores: scores of each network, k arrays (N,).
        patients: patient of each image; if given, images of one patient count as correlated.
    """
    _check(truth, scores[0])
    return _covariance(truth, np.stack([_influence(truth, one) for one in scores]), patients)


def _covariance(truth: Truth, influence: NDArray[np.float64], patients: Sequence[str] | None) -> NDArray[np.float64]:
    """Compute the covariance (k, k) of the sums of the images' influences (k, N)."""
    found = np.zeros((len(influence), len(influence)))
    for members in _strata(truth, patients):
        if len(members) > 1:
            summed = np.stack([influence[:, images].sum(1) for images in members], 1)
            found += len(members) * np.atleast_2d(np.cov(summed))
    return found


def _influence(truth: Truth, scores: Scores) -> Scores:
    """Compute the influence of each image on the AUC (N,): its centred placement over the images of its kind."""
    found = np.empty(len(truth))
    for kind, placements in zip((truth, ~truth), _placements(truth, scores), strict=True):
        found[kind] = (placements - placements.mean()) / len(placements)
    return found


def _placements(truth: Truth, scores: Scores) -> tuple[Scores, Scores]:
    """Compute the share of negatives below each positive, and of positives above each negative; ties count half."""
    positive, negative = scores[truth], scores[~truth]
    together = rankdata(np.concatenate([positive, negative]))
    above = (together[: len(positive)] - rankdata(positive)) / len(negative)
    below = 1 - (together[len(positive) :] - rankdata(negative)) / len(positive)
    return above, below


def _draw(
    truth: Truth, scores: Sequence[Scores], patients: Sequence[str] | None, draws: int, seed: int
) -> list[NDArray[np.float64]]:
    """Compute the bootstrap AUCs (draws,) of each network, with the same resamples for all.

    A resample is stored as the count of each image; the weighted AUCs of all resamples need only one sort.
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
    """Group the resampling units, as indices of their images, into strata of fixed size.

    Strata are images by truth, or patients by whether any of their images is positive. Patients form a single stratum
    if one of the two kinds has only one patient.
    """
    if patients is None:
        return [[np.array([place]) for place in np.flatnonzero(truth == kind)] for kind in (True, False)]
    names = np.asarray(patients)
    members = [np.flatnonzero(names == name) for name in dict.fromkeys(patients)]
    positive = [one for one in members if truth[one].any()]
    negative = [one for one in members if not truth[one].any()]
    groups = [group for group in (positive, negative) if group]
    return groups if min(map(len, groups)) > 1 else [members]


def kinds_of(truth: Truth, patients: Sequence[str] | None) -> tuple[int, int]:
    """Count positive and negative images, or patients with such images."""
    if patients is None:
        return int(truth.sum()), int((~truth).sum())
    names = np.asarray(patients)
    return len(set(names[truth])), len(set(names[~truth]))


def _weighted_auc(truth: Truth, scores: Scores, counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the AUCs (draws,) of images weighted by `counts` (draws, N); NaN without positives or negatives."""
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
