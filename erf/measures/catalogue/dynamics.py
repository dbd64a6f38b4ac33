"""Measures of the dependence on the image: left against right, variability."""

import numpy as np

from erf.measures import dynamics
from erf.measures.catalogue.position import shift
from erf.measures.measure import Measure
from erf.measures.observations import Sample
from erf.results.grid import Array


def _separation(sample: Sample) -> Array:
    left, right = shift(sample.left), shift(sample.right)
    return np.hypot(left[0] - right[0], left[1] - right[1])


def _lean(sample: Sample) -> Array:
    return shift(sample.right)[1] - shift(sample.left)[1]


def _left_right_variation(sample: Sample) -> Array:
    return dynamics.total_variation(sample.left.small, sample.right.small)


def _left_right_distance(sample: Sample) -> Array:
    return dynamics.earth_movers_distance(sample.left.across_rows, sample.right.across_rows)


MEASURES = [
    Measure(
        "lean",
        "dynamics",
        "x of the centre of mass over right breasts minus that over left ones",
        "px",
        "either sign; above 0 where the field follows the breast",
        "Taha et al. 2022, by eye",
        "curves",
        _lean,
        weighing="sides",
    ),
    Measure(
        "separation",
        "dynamics",
        "distance of the centres of mass over left and over right breasts",
        "px",
        "from 0",
        "Taha et al. 2022, by eye",
        "curves",
        _separation,
        limits=(0.0, np.inf),
        weighing="sides",
    ),
    Measure(
        "left_right_tv",
        "dynamics",
        "share of the mass that lies elsewhere over left than over right breasts (total variation)",
        "%",
        "0 to 100; noise lifts it",
        "ours",
        "blocks",
        _left_right_variation,
        limits=(0.0, 1.0),
        weighing="sides",
    ),
    Measure(
        "left_right_emd",
        "dynamics",
        "mean distance along x from the mass over left to that over right breasts (earth mover's)",
        "px",
        "from 0; noise lifts it",
        "ours",
        "curves",
        _left_right_distance,
        limits=(0.0, np.inf),
        weighing="sides",
    ),
    Measure(
        "variability",
        "dynamics",
        "mean share of the mass that lies elsewhere from one image to another (total variation)",
        "%",
        "0 to 100",
        "ours",
        "blocks",
        lambda sample: sample.variability,
        limits=(0.0, 1.0),
        weighing="images",
    ),
]
