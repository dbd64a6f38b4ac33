"""Image sources of the measured commands: files of phantoms in common formats, or phantoms drawn during the run."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
from PIL import Image as Pillow
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, JPEG2000Lossless, generate_uid

from erf.images import PHANTOM, Phantom, draw_phantom

PHANTOMS = "phantoms"
_BITS = 12
"""Bits per pixel of the simulated detector of DICOM files."""


def write_sources(folder: Path, sources: Sequence[str], size: tuple[int, int], counts: Sequence[int]) -> None:
    """Write the files that `location` refers to.

    Args:
        folder: folder of the files.
        sources: formats, of which `PHANTOMS` needs no files.
        size: (height, width) of the phantoms in pixels.
        counts: numbers of images, each of which gets its own folder; all images differ.
    """
    formats = [source for source in sources if source != PHANTOMS]
    if formats:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(partial(_write_phantom, folder, formats, size, counts), range(max(counts))))


def location(folder: Path, source: str, n: int) -> str:
    """Return the value of `erf compute --images` for n images of a source."""
    return PHANTOM if source == PHANTOMS else str(folder / source / str(n))


def _write_phantom(
    folder: Path, formats: Sequence[str], size: tuple[int, int], counts: Sequence[int], index: int
) -> None:
    phantom = draw_phantom(index, size=size)
    for source in formats:
        suffix, write = _FORMATS[source]
        name = f"{index:04d}_{phantom.laterality[0].upper()}_{phantom.view}{suffix}"
        first, *others = [Path(location(folder, source, n)) / name for n in counts if index < n]
        for path in (first, *others):
            path.parent.mkdir(parents=True, exist_ok=True)
        write(first, phantom)
        for other in others:
            os.link(first, other)


def _write_png(path: Path, phantom: Phantom) -> None:
    Pillow.fromarray(phantom.pixels).save(path)


def _write_array(path: Path, phantom: Phantom) -> None:
    np.save(path, phantom.pixels)


def _write_dicom(path: Path, phantom: Phantom) -> None:
    stored = phantom.pixels >> (16 - _BITS)
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = JPEG2000Lossless
    data.file_meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID
    data.Modality, data.PatientID = "MG", phantom.patient_id
    data.ImageLaterality, data.ViewPosition = phantom.laterality[0].upper(), phantom.view
    data.Rows, data.Columns = stored.shape
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, _BITS, _BITS - 1
    frame = imagecodecs.jpeg2k_encode(stored, codecformat="j2k", reversible=True, bitspersample=_BITS)
    data.PixelData = encapsulate([bytes(frame)])
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    data.save_as(path, enforce_file_format=True)


_FORMATS: dict[str, tuple[str, Callable[[Path, Phantom], None]]] = {
    "png": (".png", _write_png),
    "npy": (".npy", _write_array),
    "dicom": (".dcm", _write_dicom),
}

SOURCES = (*_FORMATS, PHANTOMS)
