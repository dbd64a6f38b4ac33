"""Area under the ROC curve, with intervals and paired comparisons.

The bootstrap draws images, or patients, within the positive and within the negative ones, and takes percentiles, as
Taha et al. 2022 (HCT) do with 10,000 draws. DeLong, DeLong, Clarke-Pearson (Biometrics 1988) give the variance in
closed form for images, Obuchowski (Biometrics 1997) for patients with several images each.

Where no image changes an AUC, as where all positive ones score above all negative ones, both say that it is known
exactly. There, intervals are those of Newcombe (Statistics in Medicine 2006, method 5), which hold for an AUC of 1.
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
"""Variances below are 0."""
_EDGE = 1e-9

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
    """How much larger the second of two values is, on the same images; no interval where no draw would differ."""

    value: float
    low: float
    high: float
    p: float
    """Two-sided, of DeLong's test, or Obuchowski's for patients."""
    p_bootstrap: float
    """Two-sided; at least 2 over the number of draws. Neither is less than what dealing out the truth could give."""


def auc(truth: Truth, scores: Scores) -> float:
    """Probability that a positive image scores above a negative one, ties counting half."""
    _check(truth, scores)
    return float(roc_auc_score(truth, scores))


def estimate(
    truth: Truth, scores: Scores, patients: Sequence[str] | None = None, draws: int = DRAWS, seed: int = 0
) -> Estimate:
    """The AUC with intervals; with `patients`, whole patients are drawn."""
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
    """The second AUC less the first, on images that both networks have seen, which are drawn together."""
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
    """Of an AUC over its standard error: normal as in DeLong's test, t where it is told by patients, who may be few."""
    groups = _strata(truth, patients)
    return norm if patients is None else t(max(sum(map(len, groups)) - len(groups), 1))


def _score_interval(value: float, positives: int, negatives: int) -> tuple[float, float]:
    """Where a true AUC makes the observed one just possible, with the variance that it would have."""
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
    """Covariance (k, k) of the AUCs of k networks on the same images; with `patients`, whose images are alike."""
    _check(truth, scores[0])
    return _covariance(truth, np.stack([_influence(truth, one) for one in scores]), patients)


def _covariance(truth: Truth, influence: NDArray[np.float64], patients: Sequence[str] | None) -> NDArray[np.float64]:
    """Covariance (k, k) of sums over images of their influences (k, N)."""
    found = np.zeros((len(influence), len(influence)))
    for members in _strata(truth, patients):
        if len(members) > 1:
            summed = np.stack([influence[:, images].sum(1) for images in members], 1)
            found += len(members) * np.atleast_2d(np.cov(summed))
    return found


def _influence(truth: Truth, scores: Scores) -> Scores:
    """How far each image takes the AUC from its value (N,): its placement, as a share of the images of its kind."""
    found = np.empty(len(truth))
    for kind, placements in zip((truth, ~truth), _placements(truth, scores), strict=True):
        found[kind] = (placements - placements.mean()) / len(placements)
    return found


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
    """What is drawn, in groups that keep their size: images by truth, or patients by whether any is positive.

    Patients are in one group where a single one is of a kind.
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
    """Positive and negative images, or patients with such images."""
    if patients is None:
        return int(truth.sum()), int((~truth).sum())
    names = np.asarray(patients)
    return len(set(names[truth])), len(set(names[~truth]))


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
