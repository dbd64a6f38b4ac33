"""Evaluation of networks from files of predictions; no network is needed."""

from erf.evaluation.predictions import Prediction, Predictions, load_predictions, save_predictions

__all__ = ["Prediction", "Predictions", "load_predictions", "save_predictions"]
