"""Split data into parts that share no patient."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from erf.datasets.example import Example
from erf.errors import InputError

SPLITS = ("train", "val", "test")


def split_by_patient(
    examples: Sequence[Example], shares: tuple[float, float, float] = (0.8, 0.1, 0.1), seed: int = 0
) -> tuple[Example, ...]:
    """Assign a split to every example, patient by patient; splits specified by the data are kept.

    The assignment depends on the patients' names and `seed`, not on the order of the examples. If every patient has a
    single label, each label is split separately. Every split with a share above 0 gets a patient if there are enough.

    Args:
        examples: the examples to split.
        shares: shares of train, val and test; they need not sum to 1.
        seed: seed of the random assignment.

    Raises:
        InputError: the data put one patient into two splits, or a split is unknown.
    """
    where = _splits_of_patients(examples)
    rng = np.random.default_rng((seed, 0x51))
    for patients in _strata(examples):
        drawn = [patient for patient in patients if patient not in where]
        bounds = _bounds(len(drawn), shares)
        where |= {drawn[index]: _split_at(place, bounds) for place, index in enumerate(rng.permutation(len(drawn)))}
    return tuple(replace(example, split=where[example.patient]) for example in examples)


def _strata(examples: Sequence[Example]) -> list[list[str]]:
    """Group the patients that are split together, each group in alphabetical order."""
    labels: dict[str, set[tuple[str, ...]]] = {}
    for example in examples:
        labels.setdefault(example.patient, set()).add(example.labels)
    if any(len(found) > 1 for found in labels.values()):
        return [sorted(labels)]
    kinds = sorted({found for each in labels.values() for found in each})
    return [sorted(patient for patient, found in labels.items() if kind in found) for kind in kinds]


def _splits_of_patients(examples: Sequence[Example]) -> dict[str, str]:
    named: dict[str, str] = {}
    for example in examples:
        if not example.split:
            continue
        if example.split not in SPLITS:
            raise InputError(f"{example.image.path}: split '{example.split}'; expected {', '.join(SPLITS)} or nothing")
        before = named.setdefault(example.patient, example.split)
        if before != example.split:
            raise InputError(
                f"patient '{example.patient}' is in splits '{before}' and '{example.split}'; what is tested must not "
                "have been trained on",
                remedy="correct the column 'split'",
            )
    return named


def _bounds(count: int, shares: tuple[float, float, float]) -> tuple[int, int]:
    """Return the starts of the second and the third part."""
    total = sum(shares)
    parts = [count * share / total for share in shares]
    second, third = round(parts[0]), round(parts[0] + parts[1])
    needed = sum(share > 0 for share in shares)
    if count >= needed:
        third = min(third, count - 1) if shares[2] else count
        second = min(second, third - 1) if shares[1] else third
    return second, third


def _split_at(place: int, bounds: tuple[int, int]) -> str:
    return SPLITS[(place >= bounds[0]) + (place >= bounds[1])]
