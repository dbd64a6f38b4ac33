"""Names, types and text encoding shared by the writer and reader of ERF files."""

import re
from collections.abc import Iterable

import h5py
import numpy as np
from numpy.typing import NDArray

FORMAT = "erf-toolkit"
FORMAT_VERSION = 2
SUFFIXES = (".h5", ".hdf5")

GZIP_LEVEL = 1

COMPRESSION = {"compression": "gzip", "compression_opts": GZIP_LEVEL, "shuffle": True}

RECORD_TEXTS = ("id", "path", "laterality", "view", "patient_id", "status", "message", "sha256")
"""Fields of an image's record with a dataset of texts each."""

RECORD_JSON = ("columns", "subsets")
"""Fields of an image's record with a dataset of JSON each."""

JSON_ATTRIBUTES = ("versions", "model_options", "method_options", "self_check", "imported")


def group_name(subset: str) -> str:
    """Group name of a subset: characters special to HDF5 or listings are percent-encoded."""
    return re.sub(r"[%/\x00-\x1f\x7f]|^\.+$", lambda found: "".join(f"%{ord(sign):02X}" for sign in found[0]), subset)


def text_array(texts: Iterable[str]) -> NDArray[np.bytes_]:
    """Encode texts as UTF-8 for a dataset or attribute; undecodable bytes of file names are escaped.

    The length is fixed: HDF5 stores variable-length text in a heap without checksums, where damage can make it loop.
    """
    values = [text.encode("utf-8", "backslashreplace") for text in texts]
    return np.array(values, np.dtype(h5py.string_dtype("utf-8", max([1, *map(len, values)]))))
