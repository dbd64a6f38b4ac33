"""Conversion of stored DICOM values to grey values for viewing: modality and VOI transformations, polarity, padding.

DICOM PS3.3: modality C.11.1, VOI C.11.2, padding C.7.5.1.1.2. An invalid VOI transformation is skipped and noted, as
viewers do; without it the pixels show the same image on another scale. An invalid modality transformation is an error.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels.processing import apply_windowing

_WINDOW_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_UNWINDOWED = "the image is on its scale before windowing"


@dataclass(frozen=True)
class Grey:
    """Grey values, their largest possible value, and remarks for the reader of the results."""

    values: NDArray[Any]
    brightest: float
    notes: tuple[str, ...] = ()


def for_viewing(data: Any, stored: NDArray[Any]) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    """Convert stored pixels to grey values in which tissue is bright.

    Args:
        data: DICOM data set; rescale and window attributes are replaced by their normalised values.
        stored: Stored pixels (1, H, W).

    Returns:
        Grey values (1, H, W), and remarks for the reader of the results.

    Raises:
        ValueError: The modality transformation is invalid.
    """
    padding = _padding(data, stored)
    stored = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    if stored.dtype.kind in "iu" and stored.dtype.itemsize <= 2:
        # Every step depends on the stored value alone: transforming 2^16 values is faster than all pixels.
        codes = stored.view(f"u{stored.dtype.itemsize}")
        values = np.arange(1 << 8 * stored.dtype.itemsize, dtype=codes.dtype).view(stored.dtype)
        pixels, notes = _grey(data, values)
        pixels = pixels[codes]
    else:
        pixels, notes = _grey(data, stored)
    if padding is not None and not padding.all():
        pixels[padding] = pixels[~padding].min()
    return pixels, notes


def _grey(data: Any, stored: NDArray[Any]) -> tuple[NDArray[np.float32], tuple[str, ...]]:
    grey = _voi(data, _modality(data, stored))
    values = grey.values
    if data.get("PhotometricInterpretation", "") == "MONOCHROME1" or data.get("PresentationLUTShape", "") == "INVERSE":
        values = np.float32(grey.brightest) - values.astype(np.float32)
    return values.astype(np.float32, copy=False), grey.notes


def _padding(data: Any, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
    first, limit = _first(data, "PixelPaddingValue"), _first(data, "PixelPaddingRangeLimit")
    if first is None:
        return None
    edges = sorted((first, first if limit is None else limit))
    return (stored >= edges[0]) & (stored <= edges[1])


def _modality(data: Any, stored: NDArray[Any]) -> Grey:
    if data.get("ModalityLUTSequence"):
        return _look_up(data, data.ModalityLUTSequence[0], stored)
    if stored.dtype.kind == "f":
        return Grey(stored, float(stored.max()))
    signed = int(data.get("PixelRepresentation") or 0) == 1
    bits = int(data.get("BitsStored") or data.BitsAllocated)
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    slope, intercept = _first(data, "RescaleSlope"), _first(data, "RescaleIntercept")
    if slope is None and intercept is None:
        return Grey(stored, float(ends[1]))
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    if slope == 0 or not math.isfinite(slope) or not math.isfinite(intercept):
        raise ValueError(f"rescale slope {slope:g} and intercept {intercept:g} give no image")
    data.RescaleSlope, data.RescaleIntercept = slope, intercept  # windowing reads both
    return Grey(stored.astype(np.float64) * slope + intercept, max(end * slope + intercept for end in ends))


def _voi(data: Any, grey: Grey) -> Grey:
    """Apply the VOI table if there is one, else the window; skip invalid ones with a note."""
    notes: tuple[str, ...] = ()
    if data.get("VOILUTSequence"):
        try:
            return _look_up(data, data.VOILUTSequence[0], grey.values)
        except (ValueError, AttributeError, TypeError) as error:
            notes = (f"VOI LUT not used: {error}",)
    center, width = _first(data, "WindowCenter"), _first(data, "WindowWidth")
    if center is None or width is None:
        return Grey(grey.values, grey.brightest, notes)
    function = str(data.get("VOILUTFunction") or "LINEAR").upper()
    if function not in _WINDOW_FUNCTIONS:
        notes += (f"VOI LUT function {function[:16]!r} is not known: read as LINEAR",)
        function = "LINEAR"
    if not (math.isfinite(center) and math.isfinite(width)) or width < (1 if function == "LINEAR" else math.ulp(0)):
        notes += (f"window of centre {center:g} and width {width:g} not used: {_UNWINDOWED}",)
        return Grey(grey.values, grey.brightest, notes)
    data.WindowCenter, data.WindowWidth, data.VOILUTFunction = center, width, function
    with np.errstate(over="ignore"):  # a sigmoid overflows far outside the window
        return Grey(apply_windowing(grey.values, data), grey.brightest, notes)


def _first(data: Any, name: str) -> float | None:
    """First value of an element with one or more numbers, None if it is absent or empty."""
    value = data.get(name)
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[0] if len(value) else None
    return None if value in (None, "") else float(value)


def _look_up(data: Any, item: Any, values: NDArray[Any]) -> Grey:
    """Map values through a table (DICOM PS3.3, C.11.1.1); values beyond its ends take the first or last entry."""
    if item.get("LUTDescriptor") is None or item.get("LUTData") is None:
        raise ValueError("a LUT without descriptor or data")
    entries, first, bits = (int(number) for number in item.LUTDescriptor)
    entries = entries or 1 << 16
    if not 8 <= bits <= 16:
        raise ValueError(f"a LUT of {bits} bits")
    content = item.LUTData
    if isinstance(content, bytes):
        order = "<" if data.file_meta.TransferSyntaxUID.is_little_endian else ">"
        packed = bits == 8 and len(content) < 2 * entries
        content = np.frombuffer(content, "u1" if packed else f"{order}u2")
    table = np.atleast_1d(np.asarray(content, dtype=np.float32))[:entries]
    if len(table) < entries:
        raise ValueError(f"a LUT of {len(table)} entries whose descriptor says {entries}")
    places = np.clip(values.astype(np.float64) - first, 0, entries - 1).astype(np.intp)
    return Grey(table[places], float(2**bits - 1))
