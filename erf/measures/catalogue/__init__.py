"""Catalogue of the measures. A new measure is one entry in the list of its group's module."""

from collections.abc import Iterable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from erf.errors import InputError
from erf.measures import size as sizes
from erf.measures.catalogue import dynamics, position, shape, size
from erf.measures.measure import Measure

MEASURES: dict[str, Measure] = {
    measure.name: measure for group in (size, shape, position, dynamics) for measure in group.MEASURES
}
"""Measures by name, in the order of tables."""

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

SIDE_MEASURES = tuple(measure.name for measure in MEASURES.values() if measure.weighing == "sides")
"""Measures that need left and right breasts."""

REPLKNET = {
    f"replknet{round(100 * share)}": partial(sizes.replknet_area_ratio, share=share) for share in (0.2, 0.3, 0.5, 0.99)
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
