"""Arrays in files of NumPy, which are untrusted: nothing is unpickled, and no claimed size is allocated."""

import hashlib
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from erf.errors import FormatError, InputError
from erf.text import one_line

SUFFIXES = (".npy", ".npz")

LARGEST_UNPACKED = 2**31
"""Largest size in bytes of a compressed array, which is read into memory."""

_NPY, _ZIP = b"\x93NUMPY", b"PK"
_HASHED = 1 << 22


@dataclass(frozen=True)
class StoredArray:
    """An array and where it came from."""

    values: NDArray[Any]
    file: str = ""
    """Name of its file; '' for an array in memory."""
    name: str = ""
    """Its name in an archive; '' in any other file."""
    sha256: str = ""
    """SHA-256 of the file, or of the bytes of an array in memory."""


def read_array(path: Path, name: str = "") -> StoredArray:
    """Read an array from a file.

    Args:
        path: Array (.npy) or archive of arrays (.npz).
        name: Name of the array in an archive; '' if it holds one only.

    Returns:
        The array; that of a .npy file is mapped, not read.

    Raises:
        FormatError: The file is missing, damaged, or holds Python objects.
        InputError: The archive has no array of this name, or several and no name is given.
    """
    with _reading(path):
        if path.exists() and not path.is_file():
            raise ValueError("a folder, pipe or device")
        with path.open("rb") as file:
            begin = file.read(len(_NPY))
            digest = hashlib.sha256(begin)
            while part := file.read(_HASHED):
                digest.update(part)
        if begin == _NPY:
            if name:
                raise InputError(f"{path} holds a single array without a name; leave out the name '{name}'")
            return StoredArray(_mapped(path), path.name, "", digest.hexdigest())
        if not begin.startswith(_ZIP):
            raise ValueError("neither .npy nor .npz")
        with zipfile.ZipFile(path) as archive:
            member = _chosen(path, archive, name)
            values = _unpacked(archive, member)
    return StoredArray(values, path.name, member.filename.removesuffix(".npy"), digest.hexdigest())


def array_names(path: Path) -> list[str]:
    """List the names of the arrays in an archive; [''] for any other file.

    Raises:
        FormatError: The file is missing or damaged.
    """
    if path.suffix.lower() != ".npz":
        return [""]
    with _reading(path), zipfile.ZipFile(path) as archive:
        return list(_members(archive))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Convert whatever a damaged file raises to a `FormatError`."""
    try:
        yield
    except (FormatError, InputError):
        raise
    except FileNotFoundError as error:
        raise FormatError(f"{path}: no such file") from error
    except Exception as error:  # a damaged archive may raise anything
        words = one_line(str(error))[:100] or type(error).__name__
        raise FormatError(f"{path}: cannot be read as an array of NumPy ({words}); expected .npy or .npz") from error


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Members of an archive by the names of their arrays."""
    return {item.filename.removesuffix(".npy"): item for item in archive.infolist() if item.filename.endswith(".npy")}


def _chosen(path: Path, archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """Return the member of an archive that holds the array of a name."""
    found = _members(archive)
    if name in found or (len(found) == 1 and not name):
        return found[name] if name else next(iter(found.values()))
    shown = ", ".join(list(found)[:10]) + (", …" if len(found) > 10 else "")
    if name:
        raise InputError(f"{path}: no array '{name}'; it has {shown or 'none'}")
    raise InputError(f"{path} holds {len(found)} arrays ({shown or 'none'})", remedy="name one of them with `array`")


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    if member.file_size > LARGEST_UNPACKED:
        raise ValueError(
            f"{member.filename} has {member.file_size / 2**30:.1f} GiB unpacked, of which at most "
            f"{LARGEST_UNPACKED / 2**30:g} are read; save it as .npy"
        )
    with archive.open(member) as file:
        shape, order, kind = _header(file)
        data = file.read(math.prod(shape) * kind.itemsize)
    return np.frombuffer(data, kind).reshape(shape, order=order)


def _mapped(path: Path) -> NDArray[Any]:
    with path.open("rb") as file:
        shape, order, kind = _header(file)
        if not math.prod(shape):
            return np.empty(shape, kind)
        return np.memmap(path, kind, "r", file.tell(), shape, order)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], Any, np.dtype[Any]]:
    """Read shape, order ('C' or 'F') and type; raise `ValueError` for Python objects, which NumPy would unpickle."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the format")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, is_fortran, kind = read(file)
    if kind.hasobject:
        raise ValueError("Python objects, which could do anything when read")
    return shape, "F" if is_fortran else "C", kind
