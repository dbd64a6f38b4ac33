"""One page about one or several ERFs, in a single file that opens from disk without a network."""

from erf.report.page import SUFFIXES, write_report

__all__ = ["SUFFIXES", "write_report"]
