"""Measures of shape: Gaussian fits, anisotropy, concentration."""

from functools import partial

import numpy as np

from erf.measures import shape
from erf.measures.measure import Measure
from erf.measures.observations import Sample
from erf.results.grid import Array


def _covariance(sample: Sample) -> Array:
    return shape.covariance(sample.across_rows, sample.across_columns, sample.products, sample.grid.center)


def _gaussian(sample: Sample, axis: int, number: int) -> Array:
    seen = sample.observed
    return shape.gaussian_curve(sample.curves[axis], seen.stretches[axis], seen.tops[axis])[number]


MEASURES = [
    Measure(
        "sigma_x",
        "shape",
        "standard deviation of the Gaussian that fits the curve across rows",
        "px",
        "above 0",
        "Kim et al. 2021; Luo et al. 2016",
        "curves",
        partial(_gaussian, axis=1, number=0),
        limits=(0.0, np.inf),
    ),
    Measure(
        "sigma_y",
        "shape",
        "standard deviation of the Gaussian that fits the curve across columns",
        "px",
        "above 0",
        "Kim et al. 2021; Luo et al. 2016",
        "curves",
        partial(_gaussian, axis=0, number=0),
        limits=(0.0, np.inf),
    ),
    Measure(
        "gaussian_x",
        "shape",
        "R² of the Gaussian that fits the curve across rows",
        "",
        "up to 1, which is a Gaussian",
        "Kim et al. 2021",
        "curves",
        partial(_gaussian, axis=1, number=1),
        limits=(-np.inf, 1.0),
    ),
    Measure(
        "gaussian_y",
        "shape",
        "R² of the Gaussian that fits the curve across columns",
        "",
        "up to 1, which is a Gaussian",
        "Kim et al. 2021",
        "curves",
        partial(_gaussian, axis=0, number=1),
        limits=(-np.inf, 1.0),
    ),
    Measure(
        "gaussian_map",
        "shape",
        "R² of the Gaussian, with axes along the image, that fits the map",
        "",
        "up to 1, which is a Gaussian",
        "Kim et al. 2021",
        "blocks",
        lambda sample: shape.gaussian_map(sample.small, sample.grid)[2],
        limits=(-np.inf, 1.0),
    ),
    Measure(
        "anisotropy",
        "shape",
        "longer over shorter axis of the mass's covariance",
        "",
        "from 1, which is round",
        "moments",
        "sums",
        lambda sample: shape.anisotropy(_covariance(sample)),
        limits=(1.0, np.inf),
    ),
    Measure(
        "orientation",
        "shape",
        "angle of the longer axis from the x axis, downwards",
        "°",
        "-90 to 90",
        "moments",
        "sums",
        lambda sample: shape.orientation(_covariance(sample)),
    ),
    Measure(
        "gini",
        "shape",
        "Gini coefficient of the mass over the image",
        "",
        "0, spread evenly, to 1",
        "Gu, Dong 2021 (Diffusion Index)",
        "blocks",
        lambda sample: shape.gini(sample.small, sample.grid),
        limits=(0.0, 1.0),
    ),
    Measure(
        "diffusion_index",
        "shape",
        "100 (1 - Gini coefficient of the mass over the image)",
        "",
        "0 to 100, spread evenly",
        "Gu, Dong 2021 (Diffusion Index)",
        "blocks",
        lambda sample: 100 * (1 - shape.gini(sample.small, sample.grid)),
        limits=(0.0, 100.0),
    ),
]
