"""ERF files: HDF5, one per run, described in docs/file-format.md.

A file appears under its name only when it is complete, with checksums appended. Maps are read on access, so that
opening a file of hundreds of megabytes is cheap. Files are untrusted: contents are checked against the expected
structure before they are read.
"""

from erf.storage.checksums import check_sums
from erf.storage.format import FORMAT_VERSION, SUFFIXES
from erf.storage.reader import as_erf, load
from erf.storage.writer import FileSink, remove_parts, save

__all__ = ["FORMAT_VERSION", "SUFFIXES", "FileSink", "as_erf", "check_sums", "load", "remove_parts", "save"]
