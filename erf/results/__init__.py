"""Results of a run in memory: ERF, provenance, per-image profiles, and the sinks that receive them. No PyTorch."""

from erf.results.erf import ERF, Curve, ImageRecord, Map, Row, Spread, Statistics, labels_of, shared_definition
from erf.results.profiles import (
    OVERVIEW,
    PROFILE_ARRAYS,
    Overview,
    Profile,
    blank_overview,
    blank_profile,
    kept,
    stack_profiles,
)
from erf.results.provenance import (
    OWN,
    PROVENANCE,
    SHIPPED,
    Origin,
    Provenance,
    input_subset,
    unit_labels,
    unlike,
    without_input,
)
from erf.results.sinks import MemorySink, Sink

__all__ = [
    "ERF",
    "OVERVIEW",
    "OWN",
    "PROFILE_ARRAYS",
    "PROVENANCE",
    "SHIPPED",
    "Curve",
    "ImageRecord",
    "Map",
    "MemorySink",
    "Origin",
    "Overview",
    "Profile",
    "Provenance",
    "Row",
    "Sink",
    "Spread",
    "Statistics",
    "blank_overview",
    "blank_profile",
    "input_subset",
    "kept",
    "labels_of",
    "shared_definition",
    "stack_profiles",
    "unit_labels",
    "unlike",
    "without_input",
]
