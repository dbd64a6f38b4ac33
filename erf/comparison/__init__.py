"""Numerical comparison of ERFs: check of comparability, table, and output formats."""

from erf.comparison.estimate import Estimate, measure
from erf.comparison.formats import FORMATS, render
from erf.comparison.table import ComparisonTable, compare, tabulate

__all__ = ["FORMATS", "ComparisonTable", "Estimate", "compare", "measure", "render", "tabulate"]
