"""Lossless reading of pixels from files: PNG, TIFF and JPEG with Pillow, NumPy arrays, DICOM.

`READERS` lists the formats; docs/extending.md shows how to add one.
"""

import hashlib
import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import TiffImagePlugin, UnidentifiedImageError

from erf.errors import ImageError
from erf.images.dicom import DICOM_SUFFIXES, decode_dicom, is_dicom
from erf.images.files import read_file
from erf.images.image import Decoded, check_size
from erf.profiling import stage

Pixels = NDArray[np.generic]

_MODES = ("1", "L", "I;16", "I;16L", "I;16B", "I", "F", "RGB")
_LARGEST = float(np.finfo(np.float32).max)
_REASON = 160
"""Largest length of a quoted decoder message, in characters."""


@dataclass(frozen=True)
class Reader:
    """Reader of one file format."""

    name: str
    """Name of the format in messages."""
    suffixes: tuple[str, ...]
    """Suffixes of its files, in lower case."""
    decode: Callable[[Path, bytes], tuple[Pixels, tuple[str, ...]]]
    """Function of the path and content of a file: pixels (C, H, W) and remarks. It raises for a damaged file."""
    failure: str = "cannot be decoded"
    """Message for a file that cannot be decoded."""


def read_image(path: Path, *, allow_constant: bool = False) -> Decoded:
    """Decode an image file.

    Args:
        path: PNG, TIFF, JPEG, .npy or DICOM file.
        allow_constant: whether all pixels may be equal, as those of a mask.

    Returns:
        Pixels (C, H, W) on the file's own scale, SHA-256 of the file, and remarks.

    Raises:
        ImageError: The file cannot be read or decoded, or its pixels cannot be used.
    """
    try:
        with stage("read"):
            content = read_file(path)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise ImageError(f"{path}: {reason}; expected a readable image file") from error
    with decoding(path), stage("decode"):
        pixels, notes = _decode(path, content)
        _check(path, pixels, allow_constant)
    with stage("hash"):
        return Decoded(pixels, hashlib.sha256(content).hexdigest(), notes)


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Convert any exception in the block to a one-line `ImageError`: decoders raise many types for damaged files."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        reader = _reader(path)
        what = reader.failure if reader else "cannot be decoded"
        raise ImageError(f"{path}: {what} ({_reason(error)}); the file may be truncated or damaged") from error


def _reason(error: Exception) -> str:
    """Message of an error in one line: the last, where pydicom lists one for each decoder."""
    if isinstance(error, MemoryError):
        return "too large for the available memory"
    if isinstance(error, UnidentifiedImageError):
        return "the content is damaged or of another format than the name says"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:_REASON] if lines else type(error).__name__


def is_image(path: Path) -> bool:
    """Whether a file has a supported format, by suffix or by DICOM's magic bytes."""
    return path.suffix.lower() in READ_SUFFIXES or is_dicom(path)


def _reader(path: Path) -> Reader | None:
    """Reader of a file by its suffix; files without a suffix, or named by a UID, are DICOM."""
    suffix = path.suffix.lower()
    if not suffix.strip(".0123456789"):
        suffix = DICOM_SUFFIXES[0]
    return next((reader for reader in READERS if suffix in reader.suffixes), None)


def _decode(path: Path, content: bytes) -> tuple[Pixels, tuple[str, ...]]:
    reader = _reader(path)
    if reader is None:
        *others, last = (reader.name for reader in READERS)
        raise ImageError(f"{path}: suffix '{path.suffix}' not known; expected {', '.join(others)} or {last}")
    return reader.decode(path, content)


def _decode_picture(path: Path, content: bytes, name: str) -> tuple[Pixels, tuple[str, ...]]:
    # Only the format of the suffix: Pillow supports dozens, and passes some of them to other programs.
    with Pillow.open(io.BytesIO(content), formats=[name]) as picture:
        frames, mode = getattr(picture, "n_frames", 1), picture.mode
        if frames != 1:
            raise ImageError(f"{path}: found {frames} pages, expected a single image; save the one to be used")
        if mode not in _MODES:
            raise ImageError(f"{path}: found colour mode {mode}, expected greyscale or RGB; convert the image")
        if len(picture.getbands()) > 1 and any(";16" in str(tile[3]) for tile in picture.tile):
            raise ImageError(
                f"{path}: 16-bit colour would lose bits, expected 16-bit greyscale; save it as .npy instead"
            )
        pixels = np.asarray(picture)
        if mode == "1":
            pixels = pixels.view(np.uint8)
        if mode.startswith("I;16") and _white_is_zero(picture):
            pixels = np.invert(pixels)
    return (pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)), ()


def _white_is_zero(picture: Pillow.Image) -> bool:
    """Whether a TIFF stores white as 0; Pillow inverts such images of 1 to 8 bits, but not of 16."""
    return isinstance(picture, TiffImagePlugin.TiffImageFile) and picture.tag_v2.get(262) == 0


def _decode_array(path: Path, content: bytes) -> tuple[Pixels, tuple[str, ...]]:
    """Decode a .npy file as a view of its bytes, without allocation; numbers only, no Python objects."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(file)
    if len(shape) not in (2, 3) or dtype.kind not in "uif":
        raise ImageError(f"{path}: found {dtype} of shape {shape}, expected numbers of shape (H, W) or (C, H, W)")
    if min(shape) < 0:
        raise ImageError(f"{path}: found shape {shape}, expected no negative lengths")
    check_size(path, *shape)
    if math.prod(shape) * dtype.itemsize > len(content) - file.tell():
        raise ImageError(f"{path}: found fewer numbers than shape {shape} needs; the file is truncated")
    numbers = np.frombuffer(content, dtype, math.prod(shape), file.tell())
    pixels = numbers.reshape(shape, order="F" if by_columns else "C")
    return (pixels[None] if pixels.ndim == 2 else pixels), ()


def _check(path: Path, pixels: NDArray[np.generic], allow_constant: bool) -> None:
    if pixels.size == 0:
        raise ImageError(f"{path}: found an empty image of shape {pixels.shape}")
    low, high = pixels.min(), pixels.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError(f"{path}: found NaN or infinite pixels, expected finite values only")
    if max(-float(low), float(high)) > _LARGEST:
        raise ImageError(f"{path}: found pixels from {low:g} to {high:g}, expected none beyond {_LARGEST:.1g}")
    if np.float32(low) == np.float32(high) and not allow_constant:
        raise ImageError(f"{path}: constant image (every pixel is {low}); it holds nothing to look at")


READERS = (
    Reader("PNG", (".png",), partial(_decode_picture, name="PNG")),
    Reader("TIFF", (".tif", ".tiff"), partial(_decode_picture, name="TIFF")),
    Reader("JPEG", (".jpg", ".jpeg"), partial(_decode_picture, name="JPEG")),
    Reader(".npy", (".npy",), _decode_array, "cannot be read as a NumPy array"),
    Reader("DICOM", DICOM_SUFFIXES, decode_dicom, "DICOM cannot be decoded"),
)
"""All formats, each recognised by the suffix of the file."""

READ_SUFFIXES = tuple(suffix for reader in READERS for suffix in reader.suffixes)
