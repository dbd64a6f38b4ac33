"""How well networks find what they were trained to find, from files of predictions; knows nothing of networks."""

from erf.evaluation.predictions import Prediction, Predictions, load_predictions, save_predictions

__all__ = ["Prediction", "Predictions", "load_predictions", "save_predictions"]
