"""Measures of a receptive field: size, shape, position, and dependence on the image.

Pure functions of maps and curves are in `size`, `shape` and `dynamics`; `catalogue` lists the measures made of them.
Nothing here needs a model or PyTorch: everything is computed from the contents of an ERF file.
"""

from erf.measures.catalogue import DEFAULT_MEASURES, MEASURES, SIDE_MEASURES, measure_map, pick_measures
from erf.measures.grid import smooth, stretch_length
from erf.measures.measure import RESOLUTION, Measure
from erf.measures.observations import (
    BLOCKS_OF_A_FIELD,
    Observations,
    Sample,
    interleaved,
    observe,
    observe_images,
    observe_subsets,
)
from erf.measures.size import radial_mass
from erf.results.grid import Grid

__all__ = [
    "BLOCKS_OF_A_FIELD",
    "DEFAULT_MEASURES",
    "MEASURES",
    "RESOLUTION",
    "SIDE_MEASURES",
    "Grid",
    "Measure",
    "Observations",
    "Sample",
    "interleaved",
    "measure_map",
    "observe",
    "observe_images",
    "observe_subsets",
    "pick_measures",
    "radial_mass",
    "smooth",
    "stretch_length",
]
