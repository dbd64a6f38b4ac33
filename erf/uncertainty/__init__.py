"""Uncertainty of measures over the images, or patients, that a file keeps: intervals, differences, tests."""

from erf.measures import Observations
from erf.uncertainty.bootstrap import bands
from erf.uncertainty.drawing import LEVEL, METHODS, RESAMPLES, Difference, Drawing, Interval
from erf.uncertainty.estimation import are_paired, compare, contrast, convergence, estimate, same_order, vary
from erf.uncertainty.sides import Deals, left_right_test, left_right_tests
from erf.uncertainty.stopping import Precision

__all__ = [
    "LEVEL",
    "METHODS",
    "RESAMPLES",
    "Deals",
    "Difference",
    "Drawing",
    "Interval",
    "Observations",
    "Precision",
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
