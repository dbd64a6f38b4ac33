"""Accuracy by the value of a column, such as magnification, in training and in testing.

Jeevan et al. 2023 (arXiv 2302.11488), Tables 1 and 2: one row per training magnification, one column per test
magnification. The mean off the diagonal shows how well a network generalises to other magnifications.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from erf.errors import InputError
from erf.evaluation.predictions import Predictions
from erf.evaluation.tables import Table


@dataclass(frozen=True)
class Matrix:
    """Accuracies of one network by training and test value."""

    model: str
    column: str
    """Column of the manifest, such as 'magnification'."""
    trained: tuple[str, ...]
    tested: tuple[str, ...]
    accuracy: NDArray[np.float64]
    """Accuracies (trained, tested), 0 to 1; NaN without images."""
    images: NDArray[np.int64]
    """Numbers of test images (trained, tested)."""

    @property
    def on(self) -> float:
        """Mean accuracy for equal training and test values."""
        return float(np.nanmean(self.accuracy[self._agree]))

    @property
    def off(self) -> float:
        """Mean accuracy for different training and test values."""
        return float(np.nanmean(self.accuracy[~self._agree]))

    @property
    def _agree(self) -> NDArray[np.bool_]:
        return np.array(self.trained)[:, None] == np.array(self.tested)[None, :]


def matrices(several: Sequence[Predictions], column: str) -> list[Matrix]:
    """Build one accuracy matrix per network, from predictions after training on one value of a manifest column each.

    Raises:
        InputError: a network was not trained on one value of the column, or two were trained on the same value.
    """
    found: dict[str, dict[str, Predictions]] = {}
    for one in several:
        name, _, value = one.trained_on.partition("=")
        if name != column or not value:
            there = f"trained on {one.trained_on}" if one.trained_on else "trained on everything"
            raise InputError(
                f"{one.model} was {there}; a matrix needs trainings on one value of {column}",
                remedy=f"train with `where={column}=VALUE`",
            )
        if value in found.setdefault(one.model, {}):
            raise InputError(f"two trainings of {one.model} on {one.trained_on}; expected one for each value")
        found[one.model][value] = one
    return [_matrix(model, column, by_value) for model, by_value in found.items()]


def _matrix(model: str, column: str, by_value: dict[str, Predictions]) -> Matrix:
    tested = sorted({row.value(column) for one in by_value.values() for row in one.rows}, key=_natural)
    trained = sorted(by_value, key=_natural)
    accuracy, images = np.full((len(trained), len(tested)), np.nan), np.zeros((len(trained), len(tested)), np.int64)
    for line, value in enumerate(trained):
        one = by_value[value]
        right = one.scores.argmax(1) == one.truth
        where = np.array([row.value(column) for row in one.rows])
        for place, other in enumerate(tested):
            images[line, place] = (where == other).sum()
            if images[line, place]:
                accuracy[line, place] = right[where == other].mean()
    return Matrix(model, column, tuple(trained), tuple(tested), accuracy, images)


def _natural(value: str) -> tuple[float, str]:
    """Sort key for natural order: 40X before 100X."""
    number = re.match(r"\d+(?:\.\d+)?", value)
    return (float(number.group()) if number else float("inf"), value)


def tabulate_matrix(matrix: Matrix) -> Table:
    """Tabulate accuracies in per cent: training values in rows, test values in columns."""
    percent = 100 * matrix.accuracy
    rows = [
        (value, *("–" if np.isnan(one) else f"{one:.1f}" for one in line), f"{np.nanmean(line):.1f}")
        for value, line in zip(matrix.trained, percent, strict=True)
    ]
    rows.append(("mean", *(f"{np.nanmean(line):.1f}" for line in percent.T), f"{np.nanmean(percent):.1f}"))
    counts = sorted(set(matrix.images[matrix.images > 0].tolist()))
    title = (
        f"{matrix.model}: accuracy [%] by {matrix.column} in training (rows) and in testing (columns, "
        f"{' to '.join(str(count) for count in dict.fromkeys((counts[0], counts[-1])))} images each)"
    )
    if len(matrix.trained) > 1:
        title += f"; the same {100 * matrix.on:.1f}, another {100 * matrix.off:.1f}"
    records = tuple(
        {
            "label": matrix.model, "measure": "accuracy", "trained_on": trained, "tested_on": tested,
            "value": float(matrix.accuracy[line, place]), "images": int(matrix.images[line, place]),
        }
        for line, trained in enumerate(matrix.trained)
        for place, tested in enumerate(matrix.tested)
    )  # fmt: skip
    return Table(title, ("trained on", *matrix.tested, "mean"), tuple(rows), records)
