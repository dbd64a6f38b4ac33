"""DICOM mammograms: header attributes, and pixels on the intensity scale for viewing.

Attributes as in DICOM PS3.3: laterality (0020,0062), (0020,0060) and (0020,9072), view (0054,0220) and (0018,5101).
"""

import io
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset, read_file_meta_info
from pydicom.pixels.decoders.base import get_decoder
from pydicom.tag import BaseTag, Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian

from erf.errors import ImageError
from erf.images import codecs
from erf.images.files import check_regular
from erf.images.image import check_size
from erf.images.laterality import parse_laterality
from erf.images.viewing import for_viewing

DICOM_SUFFIXES = (".dcm", ".dicom")

MAX_INFLATED = 1 << 28
"""Largest size of a deflated data set after decompression, in bytes."""

_META_START = 132 + 12
"""Offset of the bytes that the group length of the file meta information counts (DICOM PS3.10, 7.1)."""

_ELEMENTS = (
    *("PatientID", "ImageLaterality", "Laterality", "SharedFunctionalGroupsSequence", "ViewCodeSequence"),
    *("ViewPosition", "ImagerPixelSpacing", "PixelSpacing", "PresentationIntentType", "NumberOfFrames"),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "BitsAllocated"),
    *("BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "VOILUTSequence", "WindowCenter", "WindowWidth"),
    *("VOILUTFunction", "PresentationLUTShape", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData"),
)
"""The only elements of a data set that are read."""

_VIEW_CODES = {"R-10242": "CC", "399162004": "CC", "R-10226": "MLO", "399368009": "MLO"}
"""SNOMED codes of the two screening views, in both coding schemes that DICOM has used."""


codecs.register()


@dataclass(frozen=True)
class Header:
    """Image attributes from a DICOM header; '' and NaN if absent."""

    laterality: str = ""
    view: str = ""
    patient_id: str = ""
    pixel_spacing: float = math.nan


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its suffix or, if it has none or is named by a UID, by its magic bytes."""
    if path.suffix.strip(".0123456789"):
        return path.suffix.lower() in DICOM_SUFFIXES
    try:
        check_regular(path)
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_header(path: Path) -> Header:
    """Read header attributes without decoding pixels; an unreadable header gives empty ones (decoding reports why)."""
    try:
        check_regular(path)
        with path.open("rb") as file:
            data = _read(path, file, pixels=False)
        return Header(_laterality(data), _view(data), str(data.get("PatientID", "") or ""), _spacing(data))
    except Exception:  # pydicom raises many exception types for damaged headers
        return Header()


def decode_dicom(path: Path, content: bytes) -> tuple[NDArray[np.generic], tuple[str, ...]]:
    """Decode a DICOM image and apply padding, modality, VOI and polarity.

    Args:
        path: The file, for messages and its meta information.
        content: Bytes of the file.

    Returns:
        Pixels (C, H, W), and remarks for the reader of the results.

    Raises:
        ImageError: The file is no single greyscale or colour image, or exceeds a size limit.
        Exception: Any exception that pydicom raises for damaged files.
    """
    data = _read(path, io.BytesIO(content))
    _check_form(path, data)
    syntax = data.file_meta.TransferSyntaxUID
    plugin = codecs.PLUGIN if syntax.is_encapsulated else ""
    stored, _ = get_decoder(syntax).as_array(data, decoding_plugin=plugin)
    if stored.shape not in ((data.Rows, data.Columns), (data.Rows, data.Columns, 3)):
        raise ImageError(f"{path}: found more pixels than its header states, expected a single image")
    notes: tuple[str, ...] = ()
    if data.get("PresentationIntentType", "") == "FOR PROCESSING":
        notes = ("unprocessed detector values (FOR PROCESSING): another intensity scale than images for viewing",)
    if stored.ndim == 3:
        return np.moveaxis(stored, -1, 0), notes
    pixels, further = for_viewing(data, stored[None])
    return pixels, notes + further


def _check_form(path: Path, data: Dataset) -> None:
    """Raise `ImageError` unless a data set is a single greyscale or colour image of permitted size."""
    frames = int(data.get("NumberOfFrames") or 1)
    if frames != 1:
        raise ImageError(f"{path}: found {frames} frames, expected a single image (a slice or synthetic view)")
    if data.get("PhotometricInterpretation", "") == "PALETTE COLOR":
        raise ImageError(f"{path}: found palette colours, expected greyscale or RGB")
    check_size(path, *(int(data.get(name) or 0) for name in ("Rows", "Columns", "SamplesPerPixel")))
    stored, highest = data.get("BitsStored"), data.get("HighBit")
    if stored and highest is not None and highest != stored - 1:
        raise ImageError(f"{path}: found {stored} bits below bit {highest}, expected them to begin at the lowest bit")


def _read(path: Path, file: BinaryIO, pixels: bool = True) -> Dataset:
    """Read the elements of a file that describe the image; patients' names and dates are not read."""
    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return pydicom.dcmread(file, stop_before_pixels=not pixels, specific_tags=list(_ELEMENTS))
    # pydicom would decompress the data set without a size limit.
    file.seek(_META_START + int(meta.FileMetaInformationGroupLength))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    content = inflater.decompress(file.read(), MAX_INFLATED)
    if inflater.unconsumed_tail:
        raise ImageError(f"{path}: inflates to more than {MAX_INFLATED >> 20} MB; save it in another transfer syntax")
    tags: list[BaseTag | int] = [Tag(name) for name in _ELEMENTS]
    data = read_dataset(io.BytesIO(content), is_implicit_VR=False, is_little_endian=True, specific_tags=tags)
    data.file_meta = meta
    return data


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
