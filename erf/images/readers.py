"""Pixels from files, without loss: PNG, TIFF and JPEG through Pillow, NumPy arrays, DICOM."""

import hashlib
import io
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from erf.errors import ImageError
from erf.images.dicom import DICOM_SUFFIXES, decode_dicom, is_dicom
from erf.images.image import Decoded, check_size

PICTURE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
_MODES = ("1", "L", "I;16", "I;16L", "I;16B", "I", "F", "RGB")


def read_image(path: Path) -> Decoded:
    """Decode a file to (C, H, W) in its own scale; `ImageError` says what is wrong with it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}; expected a readable image file") from error
    pixels, notes = _decode(path, content)
    _check(path, pixels)
    return Decoded(pixels, hashlib.sha256(content).hexdigest(), notes)


def is_image(path: Path) -> bool:
    """Whether a file is one of the formats that can be read, by suffix or by DICOM's magic bytes."""
    suffix = path.suffix.lower()
    return suffix in (*PICTURE_SUFFIXES, ".npy") or is_dicom(path)


def _decode(path: Path, content: bytes) -> tuple[NDArray[np.generic], tuple[str, ...]]:
    suffix = path.suffix.lower()
    if suffix in PICTURE_SUFFIXES:
        return _decode_picture(path, content), ()
    if suffix == ".npy":
        return _decode_array(path, content), ()
    if suffix in (*DICOM_SUFFIXES, ""):
        return decode_dicom(path, content)
    raise ImageError(f"{path}: suffix '{path.suffix}' not known; expected PNG, TIFF, JPEG, .npy or DICOM")


def _decode_picture(path: Path, content: bytes) -> NDArray[np.generic]:
    try:
        with Pillow.open(io.BytesIO(content)) as picture:
            frames, mode = getattr(picture, "n_frames", 1), picture.mode
            narrowed = len(picture.getbands()) > 1 and any(";16" in str(tile.args) for tile in picture.tile)
            pixels = np.asarray(picture)
    except ImageError:
        raise
    except Exception as error:  # decoders raise whatever a damaged file makes them raise
        raise ImageError(f"{path}: cannot be decoded ({error}); the file may be truncated or damaged") from error
    if frames != 1:
        raise ImageError(f"{path}: found {frames} pages, expected a single image; save the one to be used")
    if mode not in _MODES:
        raise ImageError(f"{path}: found colour mode {mode}, expected greyscale or RGB; convert the image")
    if narrowed:
        raise ImageError(f"{path}: 16-bit colour would lose bits, expected 16-bit greyscale; save it as .npy instead")
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _decode_array(path: Path, content: bytes) -> NDArray[np.generic]:
    try:
        _check_array(path, content)
        pixels = np.load(io.BytesIO(content), allow_pickle=False)
    except ImageError:
        raise
    except Exception as error:  # decoders raise whatever a damaged file makes them raise
        raise ImageError(f"{path}: cannot be read as a NumPy array ({error})") from error
    if not isinstance(pixels, np.ndarray) or pixels.ndim not in (2, 3) or pixels.dtype.kind not in "uif":
        found = f"{getattr(pixels, 'dtype', type(pixels).__name__)} of shape {getattr(pixels, 'shape', '?')}"
        raise ImageError(f"{path}: found {found}, expected numbers of shape (H, W) or (C, H, W)")
    return pixels[None] if pixels.ndim == 2 else pixels


def _check_array(path: Path, content: bytes) -> None:
    """What the header of a NumPy file claims, before NumPy believes it."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    check_size(path, *shape)
    if math.prod(shape) * dtype.itemsize > len(content) - file.tell():
        raise ImageError(f"{path}: found fewer numbers than shape {shape} needs; the file is truncated")


def _check(path: Path, pixels: NDArray[np.generic]) -> None:
    if pixels.size == 0:
        raise ImageError(f"{path}: found an empty image of shape {pixels.shape}")
    low, high = pixels.min(), pixels.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError(f"{path}: found NaN or infinite pixels, expected finite values only")
    if low == high:
        raise ImageError(f"{path}: constant image (every pixel is {low}); it holds nothing to look at")
