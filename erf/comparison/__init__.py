"""ERFs beside each other in numbers: whether they may be compared, the table, and its forms."""

from erf.comparison.checks import differing
from erf.comparison.formats import FORMATS, render
from erf.comparison.table import ComparisonTable, tabulate

__all__ = ["FORMATS", "ComparisonTable", "differing", "render", "tabulate"]
