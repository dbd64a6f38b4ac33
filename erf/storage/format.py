"""Names, types and text encoding shared by the writer and reader of ERF files."""

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
    """Group name of a subset: characters special to HDF5 or listings are percent-encoded."""
    return re.sub(r"[%/\x00-\x1f\x7f]|^\.+$", lambda found: "".join(f"%{ord(sign):02X}" for sign in found[0]), subset)


def encoded(text: str) -> bytes:
    """Encode as UTF-8; undecodable bytes of file names are escaped."""
    return text.encode("utf-8", "backslashreplace")


def text_array(texts: Iterable[str]) -> tuple[list[bytes], np.dtype[Any]]:
    """Encode texts for a dataset, and return them with their type.

    The length is fixed: HDF5 stores variable-length text in a heap without checksums, where damage can make it loop.
    """
    values = [encoded(text) for text in texts]
    return values, np.dtype(h5py.string_dtype("utf-8", max([1, *map(len, values)])))
