"""Training of networks as in the papers, on images with labels, boxes or masks."""

from erf.training.folder import Folder, State
from erf.training.loop import Training
from erf.training.plan import Plan
from erf.training.prediction import predict
from erf.training.recipe import PRESETS, Recipe, Stage
from erf.training.tasks import task_of

__all__ = ["PRESETS", "Folder", "Plan", "Recipe", "Stage", "State", "Training", "predict", "task_of"]
