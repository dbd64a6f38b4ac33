"""Summary scores of a network on a set of images."""

import numpy as np
from sklearn.metrics import roc_auc_score

from erf.evaluation.predictions import Predictions
from erf.evaluation.segmentation import segmentation_scores


def summarise(predictions: Predictions) -> dict[str, float]:
    """Compute the summary scores of a task, by name.

    Scores for `classes` are AUC and accuracy, for `labels` the mean AUC over labels that occur, for `masks` accuracies
    and IoU. The AUC of more than two classes is the mean over pairs (Hand, Till, Machine Learning 2001). A score that
    the images do not define is NaN.
    """
    if predictions.task == "masks":
        return segmentation_scores(predictions)
    truth, scores = predictions.truth, predictions.scores
    if predictions.task == "labels":
        values = [
            roc_auc_score(truth[:, label], scores[:, label])
            for label in range(truth.shape[1])
            if 0 < truth[:, label].sum() < len(truth)
        ]
        return {"auc": float(np.mean(values)) if values else float("nan")}
    accuracy = float((scores.argmax(1) == truth).mean())
    return {"auc": _auc(truth, scores), "accuracy": accuracy}


def _auc(truth: np.ndarray, scores: np.ndarray) -> float:
    classes = scores.shape[1]
    if len(np.unique(truth)) < classes:
        return float("nan")
    if classes == 2:
        return float(roc_auc_score(truth, scores[:, 1]))
    return float(roc_auc_score(truth, scores / scores.sum(1, keepdims=True), multi_class="ovo"))
