"""Numerical comparison of ERFs: check of comparability, table, and output formats."""

from erf.comparison.checks import differing
from erf.comparison.formats import FORMATS, render
from erf.comparison.table import ComparisonTable, tabulate

__all__ = ["FORMATS", "ComparisonTable", "differing", "render", "tabulate"]
