"""Reading of untrusted HDF5 files: no external links, and only contents of the expected form.

HDF5 can read other files, load filter plug-ins, and trusts the claims of a file. Here objects are reached by hard links
alone, and a dataset is read only if its type, shape, storage and filters are as expected. Violations raise
`ValueError`, which `opened` converts to an error that names the file.
"""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from erf.errors import FormatError
from erf.storage.checksums import SummedFile, open_regular
from erf.text import one_line

_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
_LAYOUTS = {h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED}
_ATTRIBUTES = {h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM}
"""Permitted type classes of attributes; booleans are an enumeration."""

_LARGEST_ATTRIBUTE = 1 << 16
_LARGEST_TEXT = 1 << 20
"""Largest size of an attribute and of a text, in bytes."""
_DEEPEST_JSON = 16
_LONGEST_REASON = 300
"""Largest length of a quoted HDF5 error message, in characters."""
_DEFLATED = 1100
"""Largest expansion ratio of gzip."""
_LARGEST_SUM = 1e60
"""Upper bound of a sum over a map of single-precision values."""
_SPARE = 4096
"""Dataset size in bytes that is accepted regardless of the stored size."""


@dataclass(frozen=True)
class Expected:
    """Required shape and types of a dataset."""

    shape: tuple[int, ...]
    types: tuple[str, ...]
    """Names of NumPy's types; `text` for text of fixed length."""


@contextmanager
def opened(path: Path, what: str) -> Iterator[h5py.File]:
    """Open an HDF5 file for reading; convert any exception in the block to a one-line `FormatError`."""
    with SummedFile(path, open_regular(path)) as content:
        try:
            with h5py.File(content, "r") as file:
                yield file
        except FormatError:
            raise
        except Exception as error:  # a damaged file may hold anything
            reason = one_line(content.damage or str(error) or type(error).__name__)
            if len(reason) > _LONGEST_REASON:
                reason = f"{reason[:_LONGEST_REASON]}…"
            raise FormatError(f"{path}: cannot be read as {what} ({reason}); it may be damaged") from error


def child(group: h5py.Group, name: str, kind: type[h5py.Group] | type[h5py.Dataset]) -> Any:
    """Return a member of a group; raise `ValueError` for links, other kinds, and missing members."""
    where = f"{group.name}/{name}".replace("//", "/")
    link = group.get(name, getlink=True)
    if link is None:
        raise ValueError(f"{where} is missing")
    if not isinstance(link, h5py.HardLink):
        raise ValueError(f"{where} is a link to somewhere else, which is not followed")
    found = group[name]
    if not isinstance(found, kind):
        raise ValueError(f"{where} is no {kind.__name__.lower()}")
    return found


def read(group: h5py.Group, name: str, expected: Expected) -> NDArray[Any]:
    """Read the values of a dataset after `check`."""
    return np.asarray(check(group, name, expected)[()])


def check(group: h5py.Group, name: str, expected: Expected) -> h5py.Dataset:
    """Return a dataset without reading it; raise `ValueError` unless it is as expected."""
    dataset = child(group, name, h5py.Dataset)
    settings = dataset.id.get_create_plist()
    if settings.get_layout() not in _LAYOUTS or settings.get_external_count():
        raise ValueError(f"{dataset.name} lies in another file or dataset, which is not followed")
    filters = {settings.get_filter(number)[0] for number in range(settings.get_nfilters())}
    if not filters <= _FILTERS:
        raise ValueError(f"{dataset.name} has filters {sorted(filters - _FILTERS)}, expected gzip and shuffle only")
    if dataset.shape != expected.shape:
        raise ValueError(f"{dataset.name} has shape {dataset.shape}, expected {expected.shape}")
    if _type_name(dataset) not in expected.types:
        raise ValueError(f"{dataset.name} has type {_type_name(dataset)}, expected {' or '.join(expected.types)}")
    _check_stored(dataset)
    return dataset


def _type_name(dataset: h5py.Dataset) -> str:
    kind = dataset.id.get_type()
    if kind.get_class() == h5py.h5t.STRING:
        fixed = not kind.is_variable_str() and kind.get_size() <= _LARGEST_TEXT
        return "text" if fixed else "text of any length"
    if kind.get_class() not in (h5py.h5t.INTEGER, h5py.h5t.FLOAT):
        return "neither text nor number"
    return str(dataset.dtype.newbyteorder("=").name)


def _check_stored(dataset: h5py.Dataset) -> None:
    """Raise `ValueError` if the stored bytes cannot hold the claimed size, before memory is allocated."""
    size = dataset.size * dataset.id.get_type().get_size()
    if not size:
        return
    stored, most = dataset.id.get_storage_size(), 1
    if dataset.chunks is not None:
        chunks = math.prod(-(-length // step) for length, step in zip(dataset.shape, dataset.chunks, strict=True))
        if dataset.id.get_num_chunks() != chunks or math.prod(dataset.chunks) > dataset.size:
            raise ValueError(f"{dataset.name} has parts that are missing or too large")
        most = _DEFLATED
    if stored * most + _SPARE < size or stored > dataset.file.id.get_filesize():
        raise ValueError(f"{dataset.name} claims {size} bytes, of which the file holds {stored}")


def are_sound(values: NDArray[np.floating]) -> bool:
    """Whether values are finite, and none is larger than a sum over a map can be."""
    return bool((np.abs(values) < np.float64(_LARGEST_SUM)).all())


def texts(group: h5py.Group, name: str, count: int) -> list[str]:
    """Read the texts of a one-dimensional dataset."""
    return [value.decode("utf-8", "backslashreplace") for value in read(group, name, Expected((count,), ("text",)))]


def length(group: h5py.Group, name: str) -> int:
    """Number of rows of a one-dimensional dataset."""
    shape = child(group, name, h5py.Dataset).shape
    if shape is None or len(shape) != 1:
        raise ValueError(f"{name} has shape {shape}, expected one axis")
    return int(shape[0])


def attribute(holder: h5py.HLObject, name: str, *, variable: bool = False) -> Any:
    """Read an attribute as plain Python values.

    Args:
        holder: File, group or dataset.
        name: Name of the attribute.
        variable: Whether to accept variable-length text, as other programs write it.

    Returns:
        Text, number, boolean, or a tuple of them.

    Raises:
        ValueError: The attribute is missing, or of another type or size.
    """
    if name not in holder.attrs:
        raise ValueError(f"attribute {name} is missing")
    found = h5py.h5a.open(holder.id, name.encode())
    kind = found.get_type()
    is_text = kind.get_class() == h5py.h5t.STRING
    if (
        kind.get_class() not in _ATTRIBUTES
        or (is_text and kind.is_variable_str() and not variable)
        or len(found.shape) > 1
        or math.prod(found.shape) * kind.get_size() > (_LARGEST_TEXT if is_text else _LARGEST_ATTRIBUTE)
    ):
        raise ValueError(f"attribute {name} is not text of fixed length, numbers or truth values")
    return _plain(holder.attrs[name])


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return tuple(_plain(one) for one in value)
    value = value.item() if isinstance(value, np.generic) else value
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else value


def parse_json(text: str) -> Any:
    """Parse JSON; raise `ValueError` if it is nested too deeply."""
    value = json.loads(text)
    _check_depth(value, _DEEPEST_JSON)
    return value


def _check_depth(value: Any, left: int) -> None:
    if left < 0:
        raise ValueError(f"JSON is nested deeper than {_DEEPEST_JSON} levels")
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for part in parts:
        _check_depth(part, left - 1)
