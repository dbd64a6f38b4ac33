"""What writer and reader of ERF files share: names, types and texts."""

import re
from collections.abc import Iterable
from typing import Any

import h5py
import numpy as np

FORMAT = "erf-toolkit"
FORMAT_VERSION = 2
SUFFIXES = (".h5", ".hdf5")

GZIP_LEVEL = 1

COMPRESSION = {"compression": "gzip", "compression_opts": GZIP_LEVEL, "shuffle": True}

RECORD_TEXTS = ("id", "path", "laterality", "view", "patient_id", "status", "message", "sha256")
"""Fields of an image's record with a dataset of texts each."""

RECORD_JSON = ("columns", "subsets")
"""Fields of an image's record with a dataset of JSON each."""

JSON_ATTRIBUTES = ("versions", "model_options", "method_options", "self_check")


def group_name(subset: str) -> str:
    """A subset as the name of a group: what HDF5 or a listing would read otherwise is percent-encoded."""
    return re.sub(r"[%/\x00-\x1f\x7f]|^\.+$", lambda found: "".join(f"%{ord(sign):02X}" for sign in found[0]), subset)


def encoded(text: str) -> bytes:
    """UTF-8; what a name of a file holds beside it is escaped."""
    return text.encode("utf-8", "backslashreplace")


def text_array(texts: Iterable[str]) -> tuple[list[bytes], np.dtype[Any]]:
    """Encoded texts and their type.

    Of fixed length: texts of variable length lie in a heap without checksums, where damage can make HDF5 loop.
    """
    values = [encoded(text) for text in texts]
    return values, np.dtype(h5py.string_dtype("utf-8", max([1, *map(len, values)])))
