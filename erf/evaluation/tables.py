"""Evaluation tables: overall, by kind and size of the findings, by label, and for masks.

Kinds of findings as in Table A1 of Taha et al. 2022 (HCT): positive are the positive images with this kind, negative
all negative images. Sizes as in Fig. A2: positive are those with findings below a size, or in one third of the sizes.
"""

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import accuracy_score

from erf.errors import InputError
from erf.evaluation.auc import DRAWS, Estimate, Gain, estimate, gain, kinds_of
from erf.evaluation.predictions import Predictions
from erf.evaluation.segmentation import SCORES, scores_of
from erf.text import for_csv, for_markdown, format_p, markdown_table

SIZES = (100, 150, 200, 250, 300, 350, 400)
"""Thresholds of Fig. A2, in pixels."""

THIRDS = ("smallest third", "middle third", "largest third")

FEW = 10
"""Fewest images or patients of each kind; with fewer, intervals are too narrow."""

_LEAST = 2
"""Fewest positive and fewest negative images of a row."""


@dataclass(frozen=True)
class Table:
    """Formatted rows for display, and the same values as records for programs."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    records: tuple[dict[str, Any], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class _Question:
    """Subset of the images to evaluate, and which of them are positive."""

    name: str
    kind: str
    rows: NDArray[np.bool_]
    truth: NDArray[np.bool_]
    """Whether each image is positive, for all images."""
    output: int
    """Number of the class whose score is evaluated."""


def tabulate_classes(
    labels: Sequence[str],
    several: Sequence[Predictions],
    by_patient: bool = True,
    draws: int = DRAWS,
    seed: int = 0,
) -> Table:
    """Tabulate AUCs with intervals for each subset of images, and differences of each network to the first.

    Args:
        labels: name of each network.
        several: predictions of each network.
        by_patient: whether to resample whole patients, if every image names one.
        draws: number of bootstrap resamples.
        seed: seed of the resamples.

    Raises:
        InputError: the networks were not evaluated on the same images, or there are too few images.
    """
    _check_same(labels, several)
    first = several[0]
    patients = first.patients if by_patient and first.has_patients else None
    rows: list[tuple[str, ...]] = []
    records: list[dict[str, Any]] = []
    fewest = FEW
    for question in _questions(first):
        truth = question.truth[question.rows]
        if min(truth.sum(), (~truth).sum()) < _LEAST:
            continue
        chosen = [one.scores[question.rows, question.output] for one in several]
        names = None if patients is None else [patients[row] for row in np.flatnonzero(question.rows)]
        fewest = min(fewest, *kinds_of(truth, names))
        found = [estimate(truth, scores, names, draws, seed) for scores in chosen]
        gains = [gain(truth, chosen[0], scores, names, draws, seed) for scores in chosen[1:]]
        rows.append(
            (
                question.name,
                f"{found[0].positives} + {found[0].negatives}",
                *map(_format_auc, found),
                *map(_format_gain, gains),
            )
        )
        records += _records(question, labels, found, gains)
    if not rows:
        raise InputError("too few images: an AUC needs two positive and two negative ones")
    gained = [f"{label} − {labels[0]}" for label in labels[1:]]
    columns = ("images", "positive + negative", *labels, *gained)
    drawn, author = ("images", "DeLong") if patients is None else ("patients", "Obuchowski")
    title = (
        f"AUC [%] with 95 % percentile-bootstrap intervals ({draws:,} draws of {drawn}, stratified), in parentheses "
        f"{author}'s" + (f"; differences with p of {author}'s paired test" if gains else "") + _few(fewest, drawn)
    )
    return Table(title, columns, tuple(rows), tuple(records))


def _questions(predictions: Predictions) -> Iterator[_Question]:
    everything = np.ones(len(predictions), bool)
    truth, classes = predictions.truth, predictions.classes
    if predictions.task == "labels":
        for output, name in enumerate(classes):
            yield _Question(name, "label", everything, truth[:, output] == 1, output)
        return
    if len(classes) > 2:
        for output, name in enumerate(classes):
            yield _Question(f"{name} against all others", "class", everything, truth == output, output)
        return
    positive = truth == 1
    yield _Question("all", "all", everything, positive, 1)
    kinds = sorted({kind for row in predictions.rows for kind in row.findings})
    for kind in kinds:
        having = np.array([kind in row.findings for row in predictions.rows])
        yield _Question(kind, "finding", ~positive | having, positive, 1)
    yield from _by_size(predictions, positive)


def _by_size(predictions: Predictions, positive: NDArray[np.bool_]) -> Iterator[_Question]:
    sizes = np.array([row.finding_size for row in predictions.rows])
    known = positive & np.isfinite(sizes)
    if known.sum() < len(THIRDS) * _LEAST:
        return
    for limit in SIZES:
        below = known & (sizes < limit)
        if below.sum() > 0:
            yield _Question(f"findings below {limit} px", "size", ~positive | below, positive, 1)
        if below.sum() == known.sum():
            break
    order = np.argsort(sizes[known], kind="stable")
    for name, members in zip(THIRDS, np.array_split(np.flatnonzero(known)[order], len(THIRDS)), strict=True):
        third = np.zeros(len(sizes), bool)
        third[members] = True
        words = f"{name} of findings ({sizes[members].min():.0f} to {sizes[members].max():.0f} px)"
        yield _Question(words, "third", ~positive | third, positive, 1)


def _format_auc(found: Estimate) -> str:
    near, far = 100 * found.delong_low, 100 * found.delong_high
    return f"{100 * found.value:.1f}{_edges(found.low, found.high)} ({near:.1f}, {far:.1f})"


def _format_gain(found: Gain) -> str:
    return f"{100 * found.value:+.1f}{_edges(found.low, found.high, '+')}, p {format_p(found.p)}"


def _edges(low: float, high: float, sign: str = "") -> str:
    """Format an interval in per cent; empty if there is none."""
    return f" [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]" if math.isfinite(low) else ""


def _records(
    question: _Question, labels: Sequence[str], found: Sequence[Estimate], gains: Sequence[Gain]
) -> Iterator[dict[str, Any]]:
    for place, (label, one) in enumerate(zip(labels, found, strict=True)):
        record = {"label": label, "subset": question.name, "by": question.kind, "measure": "auc", **vars(one)}
        if place:
            record |= {f"gain_{name}": value for name, value in vars(gains[place - 1]).items()}
        yield record


def tabulate_accuracy(labels: Sequence[str], several: Sequence[Predictions]) -> Table:
    """Tabulate the share of images whose most probable class is the true one."""
    rows = []
    for label, one in zip(labels, several, strict=True):
        rows.append((label, str(len(one)), f"{100 * accuracy_score(one.truth, one.scores.argmax(1)):.1f}"))
    records = tuple({"label": row[0], "measure": "accuracy", "value": float(row[2]) / 100} for row in rows)
    return Table("Accuracy [%]", ("", "images", "accuracy"), tuple(rows), records)


def tabulate_masks(
    labels: Sequence[str], several: Sequence[Predictions], by_patient: bool = True, draws: int = DRAWS, seed: int = 0
) -> Table:
    """Tabulate the four scores of Table 1 of Li et al. 2020 (SRB), with 95 % percentile bootstrap intervals.

    Args:
        labels: name of each network.
        several: predictions of each network.
        by_patient: whether to resample whole patients, if every image names one.
        draws: number of bootstrap resamples.
        seed: seed of the resamples.

    Raises:
        InputError: the networks were not evaluated on the same images.
    """
    _check_same(labels, several)
    rows: list[tuple[str, ...]] = []
    records: list[dict[str, Any]] = []
    for label, one in zip(labels, several, strict=True):
        counts = _counts(one, by_patient)
        values = scores_of(counts.sum(0))
        rng = np.random.default_rng(seed)
        weights = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), draws)
        low, high = np.percentile(scores_of(np.tensordot(weights, counts, 1)), (2.5, 97.5), axis=0)
        low, high = (np.where(len(counts) > 1, edge, np.nan) for edge in (low, high))
        cells = [f"{100 * value:.1f}{_edges(near, far)}" for value, near, far in zip(values, low, high, strict=True)]
        rows.append((label, str(len(one)), *cells))
        records += [
            {"label": label, "measure": name, "value": float(value), "low": float(near), "high": float(far)}
            for name, value, near, far in zip(SCORES, values, low, high, strict=True)
        ]
    columns = ("", "images", *(name.replace("_", " ") for name in SCORES))
    drawn = "patients" if by_patient and several[0].has_patients else "images"
    title = f"Masks [%], with 95 % intervals ({draws:,} draws of {drawn})" + _few(len(counts), drawn)
    return Table(title, columns, tuple(rows), tuple(records))


def _counts(predictions: Predictions, by_patient: bool) -> NDArray[np.int64]:
    """Return the confusion matrices (G, classes, classes) of each image, or summed over the images of each patient."""
    kept = [(row.pixels, row.patient) for row in predictions.rows if row.pixels is not None]
    counts = np.stack([pixels for pixels, _ in kept])
    if not (by_patient and predictions.has_patients):
        return counts
    groups = np.unique([patient for _, patient in kept], return_inverse=True)[1]
    summed = np.zeros((int(groups.max()) + 1, *counts.shape[1:]), np.int64)
    np.add.at(summed, groups, counts)
    return summed


def _few(number: int, drawn: str) -> str:
    return f"; {number} {drawn} of a kind are too few for intervals to be relied on" if number < FEW else ""


def _check_same(labels: Sequence[str], several: Sequence[Predictions]) -> None:
    first = several[0]
    for label, other in zip(labels[1:], several[1:], strict=True):
        if other.classes != first.classes or other.task != first.task:
            raise InputError(f"{label} has classes {', '.join(other.classes)}, {labels[0]} {', '.join(first.classes)}")
        if [(row.image, row.truth) for row in other.rows] != [(row.image, row.truth) for row in first.rows]:
            raise InputError(
                f"{label} and {labels[0]} have predictions of different images, or in another order; expected the same"
            )


def to_text(tables: Sequence[Table], kind: str) -> str:
    """Format tables as `md`, or their records as `csv` or `json`."""
    if kind == "md":
        parts = (f"{for_markdown(table.title)}\n\n{markdown_table(table.columns, table.rows)}" for table in tables)
        return "\n\n".join(parts) + "\n"
    records = [_plain(record) for table in tables for record in table.records]
    if kind == "json":
        return json.dumps(records, indent=1, ensure_ascii=False) + "\n"
    out = io.StringIO()
    names = list(dict.fromkeys(name for record in records for name in record))
    writer = csv.DictWriter(out, names, restval="", lineterminator="\n")
    writer.writerow({name: for_csv(name) for name in names})
    writer.writerows({name: for_csv(value) for name, value in record.items()} for record in records)
    return out.getvalue()


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in record.items()
    }
