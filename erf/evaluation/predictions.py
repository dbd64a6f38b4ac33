"""Predictions of a network and the true labels: a CSV with one row per image.

Columns: `image`, `patient_id`, `laterality`, `view`, `truth` (labels joined by '|'), `finding`, `finding_size`, all
columns of the manifest, then `score:CLASS` for every class, or `pixels:TRUE:FOUND` for masks, and, with the same values
in every row, `model`, `weights`, `size`, `trained_on`.
"""

import csv
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from erf.errors import FormatError, InputError
from erf.storage.files import check_free, complete_file
from erf.text import for_csv, from_csv

MARK = "|"

_OWN = (
    "image",
    "patient_id",
    "laterality",
    "view",
    "truth",
    "finding",
    "finding_size",
    "model",
    "weights",
    "size",
    "trained_on",
)
_SCORE = "score:"
_PIXELS = "pixels:"


@dataclass(frozen=True)
class Prediction:
    """Prediction and truth of one image."""

    image: str
    truth: tuple[str, ...]
    scores: tuple[float, ...] = ()
    """Probability of each class."""
    pixels: NDArray[np.int64] | None = None
    """Confusion matrix of a mask: numbers of pixels by true class (rows) and predicted class (columns)."""
    patient: str = ""
    laterality: str = ""
    view: str = ""
    findings: tuple[str, ...] = ()
    """Kinds of the findings in the image."""
    finding_size: float = math.nan
    """Square root of the area of the largest finding's box, in pixels of the file."""
    columns: Mapping[str, str] = field(default_factory=dict)

    def value(self, column: str) -> str:
        """Return the value of a column, '' if there is none."""
        own = {"patient_id": self.patient, "laterality": self.laterality, "view": self.view}
        return own[column] if column in own else self.columns.get(column, "")


@dataclass(frozen=True)
class Predictions:
    """Predictions of one network."""

    task: str
    """`classes`, `labels` or `masks`."""
    classes: tuple[str, ...]
    rows: tuple[Prediction, ...]
    model: str = ""
    weights: str = ""
    size: str = ""
    trained_on: str = ""
    """Part of the data that the network was trained on, such as 'magnification=40X'; '' for all."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def truth(self) -> NDArray[np.int64]:
        """Number of the true class (N,); for `labels` 0 or 1 for each class (N, classes)."""
        if self.task == "labels":
            return np.array([[name in row.truth for name in self.classes] for row in self.rows], np.int64)
        return np.array([self.classes.index(row.truth[0]) for row in self.rows], np.int64)

    @property
    def scores(self) -> NDArray[np.float64]:
        """Probabilities (N, classes)."""
        return np.array([row.scores for row in self.rows], np.float64)

    @property
    def patients(self) -> tuple[str, ...]:
        return tuple(row.patient or row.image for row in self.rows)

    @property
    def has_patients(self) -> bool:
        """Whether every image names its patient."""
        return all(row.patient for row in self.rows)


def save_predictions(predictions: Predictions, path: Path, *, overwrite: bool = False) -> None:
    """Write the CSV, completely or not at all.

    Raises:
        OutputError: the file cannot be written, or exists and `overwrite` is not set.
    """
    check_free(path, overwrite)
    further = list(dict.fromkeys(name for row in predictions.rows for name in row.columns if name not in _OWN))
    found = _found_columns(predictions)
    with complete_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(map(for_csv, [*_OWN[:7], *further, *found, *_OWN[7:]]))
        for row in predictions.rows:
            size = "" if math.isnan(row.finding_size) else f"{row.finding_size:.1f}"
            own = [
                row.image,
                row.patient,
                row.laterality,
                row.view,
                MARK.join(row.truth),
                MARK.join(row.findings),
                size,
            ]
            values = row.pixels.ravel().tolist() if row.pixels is not None else [repr(score) for score in row.scores]
            about = [predictions.model, predictions.weights, predictions.size, predictions.trained_on]
            cells = [*own, *(row.columns.get(name, "") for name in further), *values, *about]
            writer.writerow(map(for_csv, cells))


def _found_columns(predictions: Predictions) -> list[str]:
    if predictions.task == "masks":
        return [f"{_PIXELS}{true}:{found}" for true in predictions.classes for found in predictions.classes]
    kind = "" if predictions.task == "classes" else "any:"
    return [f"{_SCORE}{kind}{name}" for name in predictions.classes]


def load_predictions(path: Path) -> Predictions:
    """Read a file written by `save_predictions`.

    Raises:
        FormatError: the file cannot be read or has another format.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            reader.fieldnames = header = [from_csv(name) for name in reader.fieldnames or ()]
            rows = [
                {name: from_csv(value) if isinstance(value, str) else value for name, value in row.items()}
                for row in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"{path}: cannot be read ({error}); expected a file of predictions") from error
    task, classes = _task_of(path, header)
    if not rows:
        raise FormatError(f"{path}: no rows; expected one for each image")
    try:
        read = tuple(_row(row, header, task, classes) for row in rows)
    except (ValueError, TypeError, InputError) as error:
        raise FormatError(f"{path}: {error}; expected predictions as `save_predictions` writes them") from error
    first = rows[0]
    return Predictions(task, classes, read, *(first[name] for name in _OWN[7:]))


def _task_of(path: Path, header: list[str]) -> tuple[str, tuple[str, ...]]:
    scores = [name.removeprefix(_SCORE) for name in header if name.startswith(_SCORE)]
    pixels = [name.removeprefix(_PIXELS) for name in header if name.startswith(_PIXELS)]
    if not set(_OWN) <= set(header) or bool(scores) == bool(pixels):
        raise FormatError(f"{path}: found columns {', '.join(header) or 'none'}; expected a file of predictions")
    if pixels:
        return "masks", tuple(dict.fromkeys(name.split(":")[0] for name in pixels))
    if all(name.startswith("any:") for name in scores):
        return "labels", tuple(name.removeprefix("any:") for name in scores)
    return "classes", tuple(scores)


def _row(row: Mapping[str, str], header: list[str], task: str, classes: tuple[str, ...]) -> Prediction:
    truth = tuple(part for part in row["truth"].split(MARK) if part)
    unknown = [label for label in truth if label not in classes]
    if unknown and task != "masks":
        raise ValueError(f"image {row['image']}: truth '{unknown[0]}' is none of {', '.join(classes)}")
    if task == "classes" and len(truth) != 1:
        raise ValueError(f"image {row['image']}: found {len(truth)} labels, expected one")
    scores = tuple(float(row[name]) for name in header if name.startswith(_SCORE))
    if not all(map(math.isfinite, scores)):
        raise ValueError(f"image {row['image']}: a score that is not finite")
    counts = [int(row[name]) for name in header if name.startswith(_PIXELS)]
    known = re.compile(f"^({_SCORE}|{_PIXELS})")
    return Prediction(
        image=row["image"],
        truth=truth,
        scores=scores,
        pixels=np.array(counts, np.int64).reshape(len(classes), len(classes)) if counts else None,
        patient=row["patient_id"],
        laterality=row["laterality"],
        view=row["view"],
        findings=tuple(part for part in row["finding"].split(MARK) if part),
        finding_size=float(row["finding_size"] or "nan"),
        columns={name: row[name] for name in header if name not in _OWN and not known.match(name)},
    )
