"""Numbers, curves and contours of a field, with the names and values of `erf.compare`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from contourpy import contour_generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from erf.accumulation.running import RunningMoments
from erf.box import Box
from erf.comparison.estimate import Estimate, measure
from erf.errors import ErfError
from erf.explorer.field import Field
from erf.explorer.stored import StoredField
from erf.explorer.subject import Check, Subject
from erf.images.thumbnail import block_means, overview
from erf.measures import DEFAULT_MEASURES, MEASURES, Observations, observe, observe_images
from erf.measures.size import mass_radius
from erf.plotting.contours import enclosing_levels
from erf.results import ERF, ImageRecord, Profile, stack_profiles
from erf.results.grid import small_block

SHARES = (0.5, 0.9, 0.99)
"""Shares of the mass within the contours."""

SHOWN = tuple(MEASURES[name] for name in DEFAULT_MEASURES)

_DEFINITION = "abs"

_BLOCKS_OF_A_RADIUS, _BLOCKS_OF_BLUR = 16, 2.0
"""Blocks in the radius that holds the share of a contour, and in the standard deviation of its smoothing."""


@dataclass(frozen=True)
class Numbers:
    """What the page shows beside a map."""

    measures: Sequence[Estimate]
    across_rows: NDArray[np.floating]
    across_columns: NDArray[np.floating]
    contours: Sequence[tuple[float, list[NDArray[np.float64]]]]
    """Share of the mass, and lines (n, 2) of (x, y) in pixels."""
    check: Check | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "measures": [_estimate(each) for each in self.measures],
            "curves": {"x": _rounded(self.across_rows), "y": _rounded(self.across_columns)},
            "contours": [
                {"share": share, "lines": [np.round(line[:, ::-1], 1).ravel().tolist() for line in lines]}
                for share, lines in self.contours
            ],
            "check": {"text": self.check.text, "ok": self.check.ok} if self.check else None,
        }


def _estimate(each: Estimate) -> dict[str, Any]:
    limits = (each.low, each.high) if math.isfinite(each.high - each.low) else (None, None)
    value = each.value if math.isfinite(each.value) else None
    return {
        "name": each.name,
        "value": value,
        "unit": each.unit,
        "text": str(each),
        "low": limits[0],
        "high": limits[1],
    }


def _rounded(curve: NDArray[np.floating]) -> list[float]:
    """Return a curve with six digits of its largest value, which is more than can be seen."""
    largest = float(np.abs(curve).max(initial=0))
    digits = 6 - math.ceil(math.log10(largest)) if largest > 0 else 0
    return [round(float(value), digits) for value in curve]


def field_numbers(subject: Subject, found: Field) -> Numbers:
    """Return the numbers of the field of a unit.

    Args:
        subject: the network and images from which it comes.
        found: the field, not a projective one.
    """
    whole = found.whole()
    curves = whole.sum(0, dtype=np.float64), whole.sum(1, dtype=np.float64)
    check = subject.check_of(found)
    if found.is_signed:
        return Numbers((), *curves, (), check)
    observed = _observed(subject, found)
    return Numbers(_of_one_image(observed), *curves, contour_lines(found.map, found.box, _radii(observed)), check)


def _of_one_image(observed: Observations) -> list[Estimate]:
    """Return the measures that a single image has, without intervals."""
    single = [one for one in SHOWN if one.group != "dynamics"]
    found = [
        Estimate(one.factor * float(one.of(observed.all())), math.nan, math.nan, one.name, one.unit) for one in single
    ]
    return [each for each in found if math.isfinite(each.value)]


def _observed(subject: Subject, found: Field) -> Observations:
    """Return the field as the observation of one image."""
    sample = subject.pictures.sample(found.place.image)
    if sample.parts:
        sample = sample.parts[found.place.part]
    provenance = subject.provenance(found)
    moments = RunningMoments([_DEFINITION], provenance.grid, torch.device("cpu"), box=Box(*map(int, found.box)))
    profile: Profile = moments.add([torch.from_numpy(found.map)[None]])[_DEFINITION]  # no longer signed: abs is itself
    tissue = overview(sample.pixels, small_block(found.size))[1][None].astype(np.float64)
    image = sample.image
    record = ImageRecord(
        image.id, image.path, image.laterality, image.view, image.patient_id, "ok", pixel_spacing=image.pixel_spacing
    )
    return observe_images(provenance, [record], stack_profiles([profile]), tissue)


def file_numbers(stored: StoredField, subset: str, definition: str) -> Numbers:
    """Return the numbers of a subset of an ERF file, with intervals over images or patients where there are any."""
    erf = stored.erf
    statistics = erf.statistics(subset, definition)
    curves = statistics.across_rows, statistics.across_columns
    if definition == "signed":
        return Numbers((), *curves, ())
    measures = list(_measured(erf, subset, definition))
    radii = _radii(observe(erf, subset, definition))
    return Numbers(measures, *curves, contour_lines(stored.mean(subset, definition), stored.box, radii))


def _measured(erf: ERF, subset: str, definition: str) -> Iterable[Estimate]:
    for one in SHOWN:
        try:
            found = measure(erf, one.name, subset=subset, definition=definition)
        except ErfError:
            continue  # such as those of both sides, where a subset has one
        if math.isfinite(found.value):
            yield found


def image_numbers(stored: StoredField, row: int, definition: str) -> Numbers:
    """Return the numbers of one image of an ERF file."""
    erf = stored.erf
    profile = erf.profiles[definition].each(lambda values: values[row : row + 1])
    curves = profile.across_rows[0], profile.across_columns[0]
    if definition == "signed":
        return Numbers((), *curves, ())
    known = erf.overview()
    tissue = None if known is None else known.tissue[row : row + 1].astype(np.float64)
    observed = observe_images(erf.provenance, [erf.images[row]], profile, tissue)
    contours = contour_lines(stored.of_image(row, definition), stored.box, _radii(observed))
    return Numbers(_of_one_image(observed), *curves, contours)


def contour_lines(
    map_: NDArray[np.floating], box: Box[float], radii: Mapping[float, float]
) -> list[tuple[float, list[NDArray[np.float64]]]]:
    """Return the contours that enclose shares of the mass of a map, each smoothed by an eighth of its radius.

    Args:
        map_: (h, w) without negative values.
        box: part of the input that it covers, in pixels.
        radii: radius in pixels that holds each share, which sets the scale of the contour.
    """
    return [(share, _lines(map_, box, share, radius)) for share, radius in radii.items() if map_.any()]


def _lines(map_: NDArray[np.floating], box: Box[float], share: float, radius: float) -> list[NDArray[np.float64]]:
    pixels = (box.bottom - box.top) / map_.shape[0]
    block = max(1, int(radius / _BLOCKS_OF_A_RADIUS / pixels)) if math.isfinite(radius) else 1
    blurred = gaussian_filter(block_means(map_, block).astype(np.float64), _BLOCKS_OF_BLUR, mode="constant")
    density = np.pad(blurred, 1)  # a border without mass closes contours at the edge of the map
    y, x = (
        start + (np.arange(length) - 0.5) * block * pixels - 0.5
        for start, length in zip(box[:2], density.shape, strict=True)
    )
    (level,) = enclosing_levels(density, density, (share,))
    return [np.asarray(line) for line in contour_generator(x, y, density).lines(level)]


def _radii(observed: Observations) -> dict[float, float]:
    """Return the radii in pixels, around the unit's centre, that hold the shares of the contours."""
    masses = observed.ring_masses.mean(0)
    return {share: float(mass_radius(masses, observed.ring_edges, share)) for share in SHARES}
