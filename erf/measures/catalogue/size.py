"""Measures of size: radii, widths and areas that hold a share of the mass."""

from functools import partial

import numpy as np

from erf.measures import size
from erf.measures.measure import Measure
from erf.measures.observations import Sample
from erf.results.grid import Array

_RADIAL = "radial cumulative mass; OpenERF"


def _field_ratio(sample: Sample) -> Array:
    height, width = sample.observed.field_size
    if not np.isfinite(height * width):
        return np.full(sample.counts.shape[:-1], np.nan)
    return _luo_size(sample) / np.sqrt(height * width)


def _luo_size(sample: Sample) -> Array:
    return size.luo_size(sample.small, sample.grid, sample.observed.radius_of_center)


def _width(sample: Sample, axis: int) -> Array:
    return size.width_at_half(sample.curves[axis], sample.observed.stretches[axis])


def _inside(sample: Sample) -> Array:
    return size.share_inside(sample.small, sample.grid, sample.observed.field_box)


def _radius(sample: Sample, share: float) -> Array:
    return size.mass_radius(sample.ring_masses, sample.observed.ring_edges, share)


def _square(sample: Sample, share: float) -> Array:
    return size.mass_square(sample.frame_masses, sample.observed.frame_edges, sample.grid, share)


MEASURES = [
    *(
        Measure(
            f"r{percent}",
            "size",
            f"radius around the unit's centre that holds {percent} % of the mass",
            "px",
            "0 to the farthest corner",
            _RADIAL,
            "sums",
            partial(_radius, share=percent / 100),
            limits=(0.0, np.inf),
        )
        for percent in (50, 90, 95, 99)
    ),
    Measure(
        "rms_radius",
        "size",
        "root mean squared distance of the mass from the unit's centre",
        "px",
        "0 to the farthest corner",
        "moments",
        "curves",
        lambda sample: size.rms_radius(sample.across_rows, sample.across_columns, sample.grid),
        limits=(0.0, np.inf),
    ),
    Measure(
        "effective_area",
        "size",
        "pixels among which the mass could be shared evenly with the same entropy",
        "px²",
        "1 to the whole image",
        "perplexity; entropy of attributions: Bhatt et al. 2020",
        "blocks",
        lambda sample: size.effective_area(sample.small, sample.grid),
        limits=(0.0, np.inf),
    ),
    Measure(
        "fwhm_x",
        "size",
        "full width at half maximum of the curve across rows",
        "px",
        "1 to the width",
        "usual",
        "curves",
        partial(_width, axis=1),
        limits=(0.0, np.inf),
    ),
    Measure(
        "fwhm_y",
        "size",
        "full width at half maximum of the curve across columns",
        "px",
        "1 to the height",
        "usual",
        "curves",
        partial(_width, axis=0),
        limits=(0.0, np.inf),
    ),
    Measure(
        "luo_size",
        "size",
        "root of the area above 4.55 % of the value at the unit's centre",
        "px",
        "1 to the whole image",
        "Luo et al. 2016",
        "blocks",
        _luo_size,
        limits=(0.0, np.inf),
    ),
    Measure(
        "field_ratio",
        "size",
        "luo_size over the side of the theoretical field; nothing where that is infinite",
        "%",
        "0 to 100, up to a pixel",
        "Luo et al. 2016",
        "blocks",
        _field_ratio,
        limits=(0.0, np.inf),
    ),
    Measure(
        "inside_field",
        "size",
        "share of the mass inside the theoretical field's box",
        "%",
        "0 to 100; 100 for any network without global operators",
        "Loos et al. 2024, by thresholds",
        "sums",
        _inside,
        limits=(0.0, 1.0),
    ),
    *(
        Measure(
            f"square{percent}",
            "size",
            f"share of the image in the square around the unit's centre that holds {percent} % of the mass",
            "%",
            "0 to 400",
            "RepLKNet's area ratio, made independent of the gradient's scale",
            "sums",
            partial(_square, share=percent / 100),
            limits=(0.0, np.inf),
        )
        for percent in (50, 99)
    ),
]
