"""Accuracies and overlaps of masks, as Table 1 of Li et al. 2020 (SRB) has them.

Long, Shelhamer, Darrell (CVPR 2015, arXiv 1411.4038), section 5: with n_ij pixels of class i taken for class j, over
all images together; t_i is the sum over j of n_ij.
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
    """The four scores of all images together; classes that do not occur are left out of means."""
    counts = [row.pixels for row in predictions.rows if row.pixels is not None]
    if not counts:
        raise InputError("no masks in these predictions")
    return dict(zip(SCORES, scores_of(np.sum(counts, axis=0)), strict=True))


def scores_of(counts: NDArray[np.int64]) -> tuple[float, float, float, float]:
    """The four scores of a table n_ij (classes, classes)."""
    right, total = np.diag(counts).astype(np.float64), counts.sum(1).astype(np.float64)
    union = total + counts.sum(0) - right
    occurs = total > 0
    iou = np.divide(right, union, out=np.zeros_like(right), where=union > 0)
    accuracy = right[occurs] / total[occurs]
    overall = right.sum() / total.sum()
    return float(overall), float(accuracy.mean()), float(iou[occurs].mean()), float((total * iou).sum() / total.sum())
