"""ERF files: HDF5, one per run, described in docs/file-format.md.

A file appears under its name only when it is complete, with sums over its bytes behind it. Maps are read when they are
asked for, so that opening a file of hundreds of megabytes costs nothing. Files may come from anybody: what is read was
checked before against what the file should hold.
"""

from erf.storage.format import FORMAT_VERSION, SUFFIXES
from erf.storage.reader import load
from erf.storage.sums import check_sums
from erf.storage.writer import FileSink, remove_parts, save

__all__ = ["FORMAT_VERSION", "SUFFIXES", "FileSink", "check_sums", "load", "remove_parts", "save"]
