"""Figures of network performance, from tables and matrices alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from erf.evaluation.matrix import Matrix
from erf.evaluation.tables import Table
from erf.plotting.saving import Figure, save_figure
from erf.storage.files import complete_file
from erf.text import for_matplotlib

_COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#d62728", "#8c564b")


def draw_matrices(matrices: Sequence[Matrix], path: Path) -> None:
    """One panel for each network, on one scale: rows are training, columns testing."""
    figure = Figure((3.4 * len(matrices) + 1.0, 3.6))
    axes = figure.subplots(1, len(matrices), squeeze=False)[0]
    values = np.concatenate([100 * matrix.accuracy.ravel() for matrix in matrices])
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    for axis, matrix in zip(axes, matrices, strict=True):
        percent = 100 * matrix.accuracy
        shown = axis.imshow(percent, cmap="cividis", vmin=low, vmax=max(high, low + 1))
        for line, place in np.ndindex(percent.shape):
            bright = percent[line, place] > (low + high) / 2
            words = "–" if np.isnan(percent[line, place]) else f"{percent[line, place]:.1f}"
            axis.text(place, line, words, ha="center", va="center", fontsize=9, color="black" if bright else "white")
        axis.set_xticks(range(len(matrix.tested)), list(map(for_matplotlib, matrix.tested)), fontsize=8.5)
        axis.set_yticks(range(len(matrix.trained)), list(map(for_matplotlib, matrix.trained)), fontsize=8.5)
        axis.set_xlabel(f"{matrix.column} in testing", fontsize=9)
        axis.set_title(f"{matrix.model}\nsame {100 * matrix.on:.1f}, other {100 * matrix.off:.1f}", fontsize=10)
    axes[0].set_ylabel(f"{matrices[0].column} in training", fontsize=9)
    figure.colorbar(shown, ax=list(axes), shrink=0.8).set_label("accuracy [%]", fontsize=9)
    _save(figure, path)


def draw_questions(table: Table, path: Path) -> None:
    """AUC of every network for every row of a table, with its interval."""
    names = list(dict.fromkeys(str(record["subset"]) for record in table.records))
    labels = list(dict.fromkeys(str(record["label"]) for record in table.records))
    figure = Figure((8.5, 1.3 + 0.42 * len(names) * max(1, len(labels) / 2)))
    axis = figure.subplots()
    for place, label in enumerate(labels):
        own = {str(record["subset"]): record for record in table.records if record["label"] == label}
        values, low, high = (100 * np.array([own[name][key] for name in names]) for key in ("value", "low", "high"))
        at = np.arange(len(names)) + (place - (len(labels) - 1) / 2) * 0.6 / len(labels)
        color = _COLORS[place % len(_COLORS)]
        axis.errorbar(
            values, at, xerr=[values - low, high - values], fmt="o", color=color, capsize=2, markersize=5, label=label
        )
    axis.axvline(50, color="#888888", lw=0.8, ls=":")
    axis.annotate(
        "chance", (50, 1), (2, 2), xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=7.5
    )
    counts = {str(record["subset"]): f"{record['positives']} + {record['negatives']}" for record in table.records}
    axis.set_yticks(
        range(len(names)), [f"{for_matplotlib(name)}\n{counts[name]} images" for name in names], fontsize=8.5
    )
    axis.invert_yaxis()
    axis.set_xlim(right=101)
    axis.set_xlabel("AUC [%], 95 % percentile-bootstrap intervals; images: positive + negative", fontsize=9)
    axis.grid(alpha=0.25, lw=0.5, axis="x")
    axis.legend(fontsize=8.5, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with complete_file(path) as part:
        save_figure(figure, part)
