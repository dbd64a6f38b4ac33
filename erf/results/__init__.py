"""Results of a run in memory: ERF, provenance, per-image profiles, and the sinks that receive them. No PyTorch."""

from erf.results.erf import ERF, Curve, ImageRecord, Map, Row, Spread, Statistics, labels_of, shared_definition
from erf.results.profiles import (
    FOOTPRINT,
    OVERVIEW,
    Footprint,
    Overview,
    blank_footprint,
    blank_overview,
    kept,
    stack_footprints,
)
from erf.results.provenance import (
    OWN,
    PROVENANCE,
    SHIPPED,
    Origin,
    Provenance,
    input_subset,
    tap_names,
    unlike,
    without_input,
)
from erf.results.sinks import MemorySink, Sink

__all__ = [
    "ERF",
    "FOOTPRINT",
    "OVERVIEW",
    "OWN",
    "PROVENANCE",
    "SHIPPED",
    "Curve",
    "Footprint",
    "ImageRecord",
    "Map",
    "MemorySink",
    "Origin",
    "Overview",
    "Provenance",
    "Row",
    "Sink",
    "Spread",
    "Statistics",
    "blank_footprint",
    "blank_overview",
    "input_subset",
    "kept",
    "labels_of",
    "shared_definition",
    "stack_footprints",
    "tap_names",
    "unlike",
    "without_input",
]
