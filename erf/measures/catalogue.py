"""Catalogue of the measures: name, meaning, unit, range, source and computation."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from erf.errors import InputError
from erf.measures import dynamics, shape, size
from erf.measures.observations import Sample
from erf.results.grid import Array

RESOLUTION = {
    "curves": "1 px",
    "sums": "½ px or less; in files of version 1 that of blocks",
    "blocks": "1 px at the unit, an eighth of the distance from it; withheld for fields narrower than three blocks",
    "tissue": "square blocks of a 128th of the image; withheld where a field is narrower than three",
}
"""Resolution of each part of the per-image profiles."""


@dataclass(frozen=True)
class Measure:
    """One number of an ERF."""

    name: str
    group: str
    """'size', 'shape', 'position' or 'dynamics'."""
    words: str
    unit: str
    """'px', 'px²', '%', '°' or '' for a plain number."""
    bounds: str
    source: str
    part: str
    """Part of the per-image profile from which it is computed, a key of `RESOLUTION`."""
    compute: Callable[[Sample], Array]

    def of(self, sample: Sample) -> Array:
        """Compute the measure for a batch of samples, as fractions instead of per cent; NaN if not resolved."""
        values = self.compute(sample)
        return values if sample.observed.resolves(self.part) else np.full_like(values, np.nan)

    @property
    def is_length(self) -> bool:
        return self.unit == "px"

    @property
    def factor(self) -> float:
        """Factor from the result of `of` to the unit for display."""
        return 100.0 if self.unit == "%" else 1.0

    @property
    def weighing(self) -> str:
        """Weight of an image in the measure: its 'mass', its mass within its side ('sides'), or equal ('images')."""
        return "sides" if self.name in TWO_SIDED else "images" if self.name == "variability" else "mass"

    @property
    def limits(self) -> tuple[float, float]:
        """Lower and upper limit of the result of `of`."""
        return _LIMITS.get(self.name, (0.0, np.inf) if self.group == "size" else (-np.inf, np.inf))


_LIMITS = {
    "inside_field": (0.0, 1.0),
    "sigma_x": (0.0, np.inf),
    "sigma_y": (0.0, np.inf),
    **dict.fromkeys(("gaussian_x", "gaussian_y", "gaussian_map"), (-np.inf, 1.0)),
    "anisotropy": (1.0, np.inf),
    "gini": (0.0, 1.0),
    "on_tissue": (0.0, 1.0),
    "tissue_excess": (0.0, np.inf),
    "separation": (0.0, np.inf),
    "left_right_tv": (0.0, 1.0),
    "left_right_emd": (0.0, np.inf),
    "variability": (0.0, 1.0),
}

_CENTROID = "OpenERF; Taha et al. 2022, by eye"


def _curve_center(curve: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(curve @ np.arange(curve.shape[-1]) / curve.sum(-1))


def _shift(sample: Sample) -> tuple[Array, Array]:
    y, x = sample.grid.center
    return _curve_center(sample.across_columns) - y, _curve_center(sample.across_rows) - x


def _separation(sample: Sample) -> Array:
    left, right = _shift(sample.left), _shift(sample.right)
    return np.hypot(left[0] - right[0], left[1] - right[1])


def _lean(sample: Sample) -> Array:
    return _shift(sample.right)[1] - _shift(sample.left)[1]


def _left_right_variation(sample: Sample) -> Array:
    return dynamics.total_variation(sample.left.small, sample.right.small)


def _left_right_distance(sample: Sample) -> Array:
    return dynamics.earth_movers_distance(sample.left.across_rows, sample.right.across_rows)


def _covariance(sample: Sample) -> Array:
    return shape.covariance(sample.across_rows, sample.across_columns, sample.products, sample.grid.center)


def _field_ratio(sample: Sample) -> Array:
    height, width = sample.observed.field_size
    if not np.isfinite(height * width):
        return np.full(sample.counts.shape[:-1], np.nan)
    return _luo_size(sample) / np.sqrt(height * width)


def _luo_size(sample: Sample) -> Array:
    return size.luo_size(sample.small, sample.grid, sample.observed.radius_of_center)


def _width(sample: Sample, axis: int) -> Array:
    return size.width_at_half(sample.curves[axis], sample.observed.stretches[axis])


def _gaussian(sample: Sample, axis: int, number: int) -> Array:
    seen = sample.observed
    return shape.gaussian_curve(sample.curves[axis], seen.stretches[axis], seen.tops[axis])[number]


def _inside(sample: Sample) -> Array:
    return size.share_inside(sample.small, sample.grid, sample.observed.field_box)


def _tissue_excess(sample: Sample) -> Array:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(sample.on_tissue / sample.tissue_area)


def _radius(sample: Sample, share: float) -> Array:
    return size.mass_radius(sample.ring_masses, sample.observed.ring_edges, share)


def _square(sample: Sample, share: float) -> Array:
    return size.mass_square(sample.frame_masses, sample.observed.frame_edges, sample.grid, share)


_RADIAL = "radial cumulative mass; OpenERF"

_ALL = [
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
        )
        for percent in (50, 99)
    ),
    Measure(
        "sigma_x",
        "shape",
        "standard deviation of the Gaussian that fits the curve across rows",
        "px",
        "above 0",
        "Kim et al. 2021; Luo et al. 2016",
        "curves",
        partial(_gaussian, axis=1, number=0),
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
    ),
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
        lambda sample: _shift(sample)[1],
    ),
    Measure(
        "shift_y",
        "position",
        "from the unit's centre to the centre of mass, downwards",
        "px",
        "either sign",
        _CENTROID,
        "curves",
        lambda sample: _shift(sample)[0],
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
    ),
    Measure(
        "lean",
        "dynamics",
        "x of the centre of mass over right breasts minus that over left ones",
        "px",
        "either sign; above 0 where the field follows the breast",
        "Taha et al. 2022, by eye",
        "curves",
        _lean,
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
    ),
]

MEASURES: dict[str, Measure] = {measure.name: measure for measure in _ALL}

DEFAULT_MEASURES = (
    "r50",
    "r90",
    "effective_area",
    "fwhm_x",
    "fwhm_y",
    "gaussian_x",
    "gaussian_y",
    "shift_x",
    "tissue_excess",
    "lean",
    "left_right_tv",
    "variability",
)

TWO_SIDED = ("lean", "separation", "left_right_tv", "left_right_emd")
"""Measures that need left and right breasts."""

REPLKNET = {
    f"replknet{round(100 * share)}": partial(size.replknet_area_ratio, share=share) for share in (0.2, 0.5, 0.99)
}
"""Measures of the full map (H, W), which is stored as a mean only, so that they have no interval."""


def pick_measures(names: tuple[str, ...] = ()) -> tuple[list[Measure], list[str]]:
    """Look up measures by name.

    Args:
        names: Names from `MEASURES` and `REPLKNET`, or 'all'; empty for `DEFAULT_MEASURES`.

    Returns:
        The measures, and the chosen names of `REPLKNET`.

    Raises:
        InputError: A name does not exist.
    """
    names = names or DEFAULT_MEASURES
    if "all" in names:
        return list(MEASURES.values()), list(REPLKNET)
    unknown = [name for name in names if name not in MEASURES and name not in REPLKNET]
    if unknown:
        raise InputError(f"no measure '{unknown[0]}'; expected some of {', '.join((*MEASURES, *REPLKNET))}, or all")
    return [MEASURES[name] for name in names if name in MEASURES], [name for name in names if name in REPLKNET]


def measure_map(values: NDArray[np.floating], names: Iterable[str] = REPLKNET) -> dict[str, float]:
    """RepLKNet's area ratios of a map (H, W), as its authors compute them."""
    return {name: REPLKNET[name](values) for name in names}
