"""Measures of position: centre of mass, tissue."""

import numpy as np

from erf.measures.measure import Measure
from erf.measures.observations import Sample
from erf.results.grid import Array

_CENTROID = "OpenERF; Taha et al. 2022, by eye"


def _curve_center(curve: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(curve @ np.arange(curve.shape[-1]) / curve.sum(-1))


def shift(sample: Sample) -> tuple[Array, Array]:
    """Distance (y, x) in pixels from the unit's centre to the centre of mass of each sample."""
    y, x = sample.grid.center
    return _curve_center(sample.across_columns) - y, _curve_center(sample.across_rows) - x


def _tissue_excess(sample: Sample) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sample.on_tissue / sample.tissue_area)


MEASURES = [
    Measure(
        "centroid_x",
        "position",
        "x of the centre of mass",
        "px",
        "0 to the width",
        _CENTROID,
        "curves",
        lambda sample: _curve_center(sample.across_rows),
    ),
    Measure(
        "centroid_y",
        "position",
        "y of the centre of mass",
        "px",
        "0 to the height",
        _CENTROID,
        "curves",
        lambda sample: _curve_center(sample.across_columns),
    ),
    Measure(
        "shift_x",
        "position",
        "from the unit's centre to the centre of mass, to the right",
        "px",
        "either sign",
        _CENTROID,
        "curves",
        lambda sample: shift(sample)[1],
    ),
    Measure(
        "shift_y",
        "position",
        "from the unit's centre to the centre of mass, downwards",
        "px",
        "either sign",
        _CENTROID,
        "curves",
        lambda sample: shift(sample)[0],
    ),
    Measure(
        "on_tissue",
        "position",
        "share of the mass on tissue",
        "%",
        "0 to 100",
        "ours; object rate: Loos et al. 2024",
        "tissue",
        lambda sample: sample.on_tissue,
        limits=(0.0, 1.0),
    ),
    Measure(
        "tissue_excess",
        "position",
        "share of the mass on tissue over tissue's share of the image",
        "",
        "from 0; 1 where tissue makes no difference",
        "ours",
        "tissue",
        _tissue_excess,
        limits=(0.0, np.inf),
    ),
]
