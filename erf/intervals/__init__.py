"""Uncertainty of measures over the images, or patients, that a file keeps: intervals, differences, tests."""

from erf.intervals.bootstrap import bands
from erf.intervals.drawing import LEVEL, METHODS, RESAMPLES, Difference, Drawing, Interval
from erf.intervals.estimation import are_paired, compare, contrast, convergence, estimate, same_order, vary
from erf.intervals.sides import Deals, left_right_test, left_right_tests
from erf.intervals.stopping import Precision
from erf.measures import Observations

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
