"""Mirror test: whether the receptive field is mirrored with the image (equivariance) or unchanged (invariance).

It compares the curves across rows of each image and of its mirror image. Curves are mirrored around the unit's centre:
in most networks it is not the middle of the image, and no unit lies at its mirrored position.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from erf.errors import InputError
from erf.measures import observe
from erf.measures.dynamics import total_variation
from erf.results import ERF, unlike
from erf.results.grid import Array
from erf.uncertainty import Interval, Resampling, same_order, vary

_ALIKE = ("model", "model_options", "weights_sha256", "seed", "layer", "unit", "input_shape", "normalisation")

MIRROR_MEASURES = {
    "turned": (
        "distance of the curve of the mirror image from the mirrored curve: 0 where the field turns with the image",
        "%",
    ),
    "kept": ("distance of the curve of the mirror image from the curve as it was: 0 where the field stays", "%"),
    "turning": (
        "share of the squared shifts in x that changes sign with the image: 100 where the field turns, "
        "0 where it stays, 50 where one has nothing to do with the other",
        "%",
    ),
}
"""Meaning and unit of each measure; all values are between 0 and 1."""


@dataclass(frozen=True)
class MirrorTest:
    """The measures of a mirror test, with their intervals over images."""

    label: str
    images: int
    groups: int
    """Number of resampling units: patients or images."""
    intervals: dict[str, Interval]


def mirror_test(
    erf: ERF,
    mirrored: ERF,
    *,
    label: str = "",
    subset: str = "all",
    definition: str = "abs",
    resampling: Resampling | None = None,
    by_patient: bool = True,
) -> MirrorTest:
    """Compare an ERF with that of the same network over the same images, mirrored.

    Args:
        erf: ERF without mirroring.
        mirrored: ERF of the same run with mirroring.
        label: Name of the test; the ERF's title if empty.
        subset: Subset of images.
        definition: Definition of the map.
        resampling: Settings of the intervals; default if None.
        by_patient: Whether to resample whole patients if every image names one.

    Returns:
        Measures of the test with intervals.

    Raises:
        InputError: The ERFs are not counterparts, or have different images.
    """
    _check_counterparts(erf, mirrored)
    one, two = (observe(each, subset, definition) for each in (erf, mirrored))
    if sorted(one.keys) != sorted(two.keys):
        raise InputError("mirror test: the files differ in their images; expected the same images, from the same seed")
    if not by_patient:
        one = replace(one, groups=np.arange(len(one)).astype(str))
    two = two.pick(same_order(two, one))
    center = erf.provenance.unit_center[1]
    turned = _variation(_flipped(one.across_rows, center), two.across_rows)
    kept = _variation(one.across_rows, two.across_rows)
    shifts = [_shift(each.across_rows, center) for each in (one, two)]
    odd, even = (shifts[0] - shifts[1]) ** 2, (shifts[0] + shifts[1]) ** 2

    def values(counts: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            share = (counts @ odd) / (counts @ (odd + even))
            return np.stack([counts @ turned / counts.sum(-1), counts @ kept / counts.sum(-1), share])

    alike = np.ones(len(one))
    weights = dict(zip(MIRROR_MEASURES, (alike, alike, odd + even), strict=True))
    found = vary(one, values, weights, (0, 1), resampling or Resampling())
    return MirrorTest(label or erf.provenance.title, len(one), len(set(one.groups)), found)


def _check_counterparts(erf: ERF, mirrored: ERF) -> None:
    if (erf.provenance.mirrored, mirrored.provenance.mirrored) != (False, True):
        raise InputError("mirror test: expected a file and one of the same run with mirrored images, in this order")
    found = unlike(erf.provenance, mirrored.provenance, _ALIKE)
    if found:
        raise InputError(
            f"mirror test: the files differ in {'; '.join(found)}; expected the same run with mirrored images"
        )


def _variation(one: Array, two: Array) -> Array:
    return total_variation(one, two, axes=(-1,))


def _flipped(curves: Array, center: float) -> Array:
    """Mirror curves (N, W) around a position, with 0 outside the image."""
    positions = np.arange(curves.shape[-1])
    sources = 2 * center - positions
    return np.stack([np.interp(sources, positions, curve, left=0, right=0) for curve in curves])


def _shift(curves: Array, center: float) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(curves @ (np.arange(curves.shape[-1]) - center) / curves.sum(-1))


def mirror_rows(tests: Sequence[MirrorTest]) -> list[list[str]]:
    """One row per measure: name, meaning, unit, and each test's value and interval."""
    from erf.comparison.formats import format_interval

    return [
        [name, words, unit, *(format_interval(test.intervals[name], 100) for test in tests)]
        for name, (words, unit) in MIRROR_MEASURES.items()
    ]
