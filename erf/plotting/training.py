"""Figure of the course of a training, from its log alone."""

import csv
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from erf.errors import FormatError
from erf.plotting.saving import Figure, save_figure
from erf.storage.files import complete_file

_SCORES = {
    "validation_auc": "AUC",
    "validation_accuracy": "accuracy",
    "validation_mean_iou": "mean IoU",
    "validation_overall_accuracy": "overall accuracy",
}
_SMOOTHED = 20
"""Largest number of updates in the moving average of the loss."""


def draw_curves(folder: Path, path: Path) -> None:
    """Draw the loss of every update, the validation loss and scores of every epoch, and the learning rate.

    Reads log.csv and epochs.json of a training's folder; `FormatError` where they cannot be read.
    """
    try:
        with (folder / "log.csv").open(newline="", encoding="utf-8") as file:
            steps = list(csv.DictReader(file))
        epochs = json.loads((folder / "epochs.json").read_text(encoding="utf-8"))
        updates = np.array([int(step["step"]) for step in steps])
        losses, rates = (np.array([float(step[name]) for step in steps]) for name in ("loss", "lr"))
    except (OSError, ValueError, KeyError) as error:
        raise FormatError(f"{folder}: no log of a training ({error}); expected the folder of a training") from error
    figure = Figure((11, 3.6))
    loss, score, rate = figure.subplots(1, 3)
    _draw_loss(loss, updates, losses, epochs)
    _draw_scores(score, epochs)
    rate.plot(updates, rates, color="#555555", lw=1.2)
    rate.set_title("learning rate", fontsize=10)
    for axis in (loss, score, rate):
        _mark_stages(axis, epochs)
        axis.set_xlabel("updates", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25, lw=0.5)
        axis.set_ylim(bottom=0)
        axis.set_xlim(0, max(updates.max(initial=1), 1))
    with complete_file(path) as part:
        save_figure(figure, part)


def _draw_loss(axis: Axes, updates: Any, losses: Any, epochs: list[dict[str, Any]]) -> None:
    axis.plot(updates, losses, color="#1f77b4", alpha=0.3, lw=0.7)
    width = max(1, min(_SMOOTHED, len(losses) // 4))
    if len(losses) >= width:
        smooth = np.convolve(losses, np.full(width, 1 / width), "valid")
        words = f"training, mean of {width} updates" if width > 1 else "training"
        axis.plot(updates[width - 1 :], smooth, color="#1f77b4", lw=1.4, label=words)
    found = [(row["updates"], row["validation_loss"]) for row in epochs if "validation_loss" in row]
    if found:
        axis.plot(*zip(*found, strict=True), "o-", color="#ff7f0e", lw=1.2, markersize=4, label="validation")
    axis.legend(fontsize=8, frameon=False)
    axis.set_title("loss", fontsize=10)


def _draw_scores(axis: Axes, epochs: list[dict[str, Any]]) -> None:
    for name, words in _SCORES.items():
        found = [(row["updates"], row[name]) for row in epochs if name in row]
        if found:
            axis.plot(*zip(*found, strict=True), "o-", lw=1.2, markersize=4, label=words)
    axis.set_title("on validation images", fontsize=10)
    if axis.lines:
        axis.legend(fontsize=8, frameon=False, loc="lower right")
    axis.set_ylim(0, 1.02)


def _mark_stages(axis: Axes, epochs: list[dict[str, Any]]) -> None:
    """Draw a line at the beginning of each stage, with its name."""
    for before, row in pairwise(epochs):
        if before["stage"] != row["stage"]:
            axis.axvline(before["updates"], color="#999999", lw=0.8, ls=":")
            axis.annotate(
                row["stage"], (before["updates"], 1), (3, -3), xycoords=("data", "axes fraction"),
                textcoords="offset points", va="top", fontsize=8, color="#666666",
            )  # fmt: skip
