"""Uncertainty of measures over the images, or patients, that a file keeps: intervals, differences, tests."""

from erf.measures import Observations
from erf.uncertainty.bootstrap import bands
from erf.uncertainty.estimation import are_paired, compare, contrast, convergence, estimate, same_order, vary
from erf.uncertainty.resampling import LEVEL, METHODS, RESAMPLES, Difference, Interval, Resampling
from erf.uncertainty.sides import SidePermutations, left_right_test, left_right_tests
from erf.uncertainty.stopping import StoppingRule

__all__ = [
    "LEVEL",
    "METHODS",
    "RESAMPLES",
    "Difference",
    "Interval",
    "Observations",
    "Resampling",
    "SidePermutations",
    "StoppingRule",
    "are_paired",
    "bands",
    "compare",
    "contrast",
    "convergence",
    "estimate",
    "left_right_test",
    "left_right_tests",
    "same_order",
    "vary",
]
