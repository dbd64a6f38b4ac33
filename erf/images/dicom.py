"""Mammograms from DICOM: header facts and pixels brought to the scale that is meant for viewing.

Attributes are those of DICOM PS3.3: laterality (0020,0062), (0020,0060) and (0020,9072), view (0054,0220) and
(0018,5101), padding (0028,0120), modality and VOI steps C.11.1 and C.11.2.
"""

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import DeflatedExplicitVRLittleEndian

from erf.errors import ImageError
from erf.images import codecs
from erf.images.image import check_size
from erf.images.laterality import parse_laterality

DICOM_SUFFIXES = (".dcm", ".dicom")

_META = 2048
"""Bytes within which a file names its transfer syntax."""

_VIEW_CODES = {"R-10242": "CC", "399162004": "CC", "R-10226": "MLO", "399368009": "MLO"}
"""SNOMED codes of the two screening views, in both code systems that DICOM has used."""


codecs.register()


@dataclass(frozen=True)
class Header:
    """What a DICOM header says about an image; '' and NaN where it says nothing."""

    laterality: str = ""
    view: str = ""
    patient_id: str = ""
    pixel_spacing: float = math.nan


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its suffix or, where it has none, by the way it begins."""
    if path.suffix:
        return path.suffix.lower() in DICOM_SUFFIXES
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_header(path: Path) -> Header:
    """Header facts without decoding; an unreadable header says nothing (decoding will say why)."""
    try:
        with path.open("rb") as file:
            _refuse_deflated(path, file.read(_META))
        data = pydicom.dcmread(path, stop_before_pixels=True)
        return Header(_laterality(data), _view(data), str(data.get("PatientID", "") or ""), _spacing(data))
    except Exception:  # pydicom raises what a damaged header makes it raise
        return Header()


def decode_dicom(path: Path, content: bytes) -> tuple[NDArray[np.generic], tuple[str, ...]]:
    """Pixels (C, H, W) after padding, modality, VOI and polarity, and notes about them."""
    try:
        _refuse_deflated(path, content)
        data = pydicom.dcmread(io.BytesIO(content))
        check_size(path, int(data.get("Rows", 0) or 0), int(data.get("Columns", 0) or 0))
        codecs.check_frame_size(path, data)
        frames = int(data.get("NumberOfFrames", 1) or 1)
        stored = data.pixel_array if frames == 1 else None
    except ImageError:
        raise
    except Exception as error:  # decoders raise many types; all mean that this file cannot be used
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ImageError(f"{path}: DICOM cannot be decoded ({reason}); the file may be truncated") from error
    if stored is None:
        raise ImageError(f"{path}: found {frames} frames, expected a single image (a slice or synthetic view)")
    if data.get("PhotometricInterpretation", "") == "PALETTE COLOR":
        raise ImageError(f"{path}: found palette colours, expected greyscale or RGB")
    pixels = stored[None] if stored.ndim == 2 else np.moveaxis(stored, -1, 0)
    notes: tuple[str, ...] = ()
    if data.get("PresentationIntentType", "") == "FOR PROCESSING":
        notes = ("unprocessed detector values (FOR PROCESSING): another intensity scale than images for viewing",)
    return (_for_viewing(data, pixels) if len(pixels) == 1 else pixels), notes


def _refuse_deflated(path: Path, content: bytes) -> None:
    """A deflated file is inflated whole before its header can be seen, to whatever size."""
    if DeflatedExplicitVRLittleEndian.encode() in content[:_META]:
        raise ImageError(f"{path}: deflated DICOM is not read; save it in another transfer syntax")


def _for_viewing(data: Any, stored: NDArray[Any]) -> NDArray[np.float32]:
    padding = _padding(data, stored)
    pixels = apply_voi_lut(apply_modality_lut(stored, data), data).astype(np.float32)
    if data.get("PhotometricInterpretation", "") == "MONOCHROME1" or data.get("PresentationLUTShape", "") == "INVERSE":
        pixels = np.float32(_brightest(data)) - pixels
    if padding is not None and not padding.all():
        pixels[padding] = pixels[~padding].min()
    return pixels


def _padding(data: Any, stored: NDArray[Any]) -> NDArray[np.bool_] | None:
    if "PixelPaddingValue" not in data:
        return None
    edges = sorted((int(data.PixelPaddingValue), int(data.get("PixelPaddingRangeLimit", data.PixelPaddingValue))))
    return (stored >= edges[0]) & (stored <= edges[1])


def _brightest(data: Any) -> float:
    """The largest value that the stored bits can give after the modality step."""
    signed = int(data.get("PixelRepresentation", 0)) == 1
    largest = 2 ** (int(data.BitsStored) - signed) - 1
    return float(largest * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0)))


def _laterality(data: Any) -> str:
    shared = data.get("SharedFunctionalGroupsSequence", [])
    frame = [item for group in shared for item in group.get("FrameAnatomySequence", [])]
    tags = [data.get("ImageLaterality", ""), data.get("Laterality", "")]
    tags += [item.get("FrameLaterality", "") for item in frame]
    return next((side for tag in tags if (side := parse_laterality(str(tag or "")))), "")


def _view(data: Any) -> str:
    codes = [_VIEW_CODES.get(str(item.get("CodeValue", "")), "") for item in data.get("ViewCodeSequence", [])]
    return next((code for code in codes if code), str(data.get("ViewPosition", "") or ""))


def _spacing(data: Any) -> float:
    spacing = data.get("ImagerPixelSpacing") or data.get("PixelSpacing")
    return float(spacing[0]) if spacing else math.nan
