"""Segmentation scores: accuracies and overlaps of masks, as in Table 1 of Li et al. 2020 (SRB).

Defined by Long, Shelhamer, Darrell (CVPR 2015, arXiv 1411.4038), section 5, from n_ij, the number of pixels of class i
predicted as class j over all images; t_i is the sum over j of n_ij.
"""

import numpy as np
from numpy.typing import NDArray

from erf.errors import InputError
from erf.evaluation.predictions import Predictions

SCORES = {
    "overall_accuracy": "share of pixels that are right",
    "mean_accuracy": "that share for each class, averaged over classes",
    "mean_iou": "intersection over union, averaged over classes",
    "frequency_weighted_iou": "intersection over union, weighted by the pixels of each class",
}


def segmentation_scores(predictions: Predictions) -> dict[str, float]:
    """Compute the four scores over all images together.

    A class enters the mean IoU if it occurs in the truth or in the predictions, and the mean accuracy if it occurs in
    the truth.

    Raises:
        InputError: the predictions have no masks.
    """
    counts = [row.pixels for row in predictions.rows if row.pixels is not None]
    if not counts:
        raise InputError("no masks in these predictions")
    return dict(zip(SCORES, scores_of(np.sum(counts, axis=0)).tolist(), strict=True))


def scores_of(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute the four scores (..., 4) from confusion matrices n_ij (..., classes, classes)."""
    right = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    total = counts.sum(-1).astype(np.float64)
    union = total + counts.sum(-2) - right
    with np.errstate(invalid="ignore", divide="ignore"):
        iou, accuracy = right / union, right / total  # NaN for classes that do not occur
        pixels = total.sum(-1)
        weighted = np.nansum(total * iou, -1) / pixels
        return np.stack([right.sum(-1) / pixels, _mean(accuracy), _mean(iou), weighted], -1)


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the mean over the last axis, ignoring NaN."""
    known = np.isfinite(values)
    return np.asarray(np.nansum(values, -1) / known.sum(-1))
