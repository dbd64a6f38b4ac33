"""The engine: plan a run, then compute and accumulate the gradients of its images."""

from erf.engine.api import choose_run_way, compute_layers
from erf.engine.one_unit import compute
from erf.engine.units import find_units

__all__ = ["choose_run_way", "compute", "compute_layers", "find_units"]
