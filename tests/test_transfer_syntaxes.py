"""Intact DICOM of every transfer syntax against pydicom.

`ERF_FUZZ=50 pytest tests/test_transfer_syntaxes.py` reads 50 of each. Where further decoders of pydicom are installed
(pylibjpeg, pyjpegls), they are the reference for compressed frames; otherwise Pillow's, or what was compressed.
"""

import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut, apply_voi_lut
from pydicom.uid import UID

from erf.errors import ImageError
from erf.images import read_image
from tests.dicom_files import LOSSLESS, LOSSY, NATIVE, write_intact

FILES = int(os.environ.get("ERF_FUZZ", "6"))
REFERENCES = ("pillow", "pyjpegls", "pylibjpeg", "pydicom")
ROUNDING = {uid.JPEGExtended12Bit: 4, uid.JPEG2000: 1, uid.HTJ2K: 1}
"""By which decoders of the same frame may differ (ITU-T T.83, T.803)."""

pytestmark = pytest.mark.filterwarnings("ignore:::pydicom")


@pytest.mark.parametrize("syntax", [*NATIVE, *LOSSLESS], ids=lambda syntax: syntax.keyword)
def test_lossless_files_equal_pydicom(syntax: UID, tmp_path: Path) -> None:
    for seed in range(FILES):
        intact = write_intact(tmp_path / "a.dcm", syntax, seed)
        data = pydicom.dcmread(intact.path)
        found = decoded_elsewhere(data)
        if found is not None:
            np.testing.assert_array_equal(found, intact.stored)
        np.testing.assert_array_equal(pixels_of(intact.path), shown(data, intact.stored), err_msg=f"seed {seed}")


@pytest.mark.parametrize("syntax", LOSSY, ids=lambda syntax: syntax.keyword)
def test_lossy_files_equal_pydicom(syntax: UID, tmp_path: Path) -> None:
    for seed in range(FILES):
        intact = write_intact(tmp_path / "a.dcm", syntax, seed, steps=False)
        data = pydicom.dcmread(intact.path)
        found = decoded_elsewhere(data)
        expected = shown(data, intact.stored if found is None else found).astype(float)
        tolerance = intact.tolerance if found is None else ROUNDING.get(syntax, 0)
        np.testing.assert_allclose(
            pixels_of(intact.path).astype(float), expected, rtol=0, atol=tolerance, err_msg=f"seed {seed}"
        )


def pixels_of(path: Path) -> NDArray[np.generic]:
    """Pixels (C, H, W), none of an image that a window makes constant."""
    try:
        return read_image(path).pixels
    except ImageError as error:
        if "constant image" in str(error):
            return np.zeros(0)
        raise


def decoded_elsewhere(data: Dataset) -> NDArray[np.generic] | None:
    """Stored pixels by another decoder than ours; None where none is installed."""
    decoder = get_decoder(data.file_meta.TransferSyntaxUID)
    if not decoder.is_encapsulated:
        return data.pixel_array
    for plugin in REFERENCES:
        if plugin in decoder.available_plugins:
            try:
                return decoder.as_array(data, decoding_plugin=plugin)[0]
            except RuntimeError:  # a form that this plug-in does not read
                continue
    return None


def shown(data: Dataset, stored: NDArray[np.generic]) -> NDArray[np.generic]:
    """Pixels (C, H, W) for viewing, by pydicom's own steps."""
    if stored.min() == stored.max():
        return np.zeros(0)
    if stored.ndim == 3:
        return np.moveaxis(stored, -1, 0)
    pixels = apply_voi_lut(apply_modality_lut(stored, data), data).astype(np.float32)
    if data.PhotometricInterpretation == "MONOCHROME1":
        pixels = np.float32(brightest(data)) - pixels
    if "PixelPaddingValue" in data and not (stored == data.PixelPaddingValue).all():
        padding = stored == data.PixelPaddingValue
        pixels[padding] = pixels[~padding].min()
    return pixels[None] if pixels.min() < pixels.max() else np.zeros(0)


def brightest(data: Dataset) -> float:
    """The largest value that the last step can give."""
    for sequence in ("VOILUTSequence", "ModalityLUTSequence"):
        if sequence in data and (sequence == "VOILUTSequence" or "WindowWidth" not in data):
            return 2 ** data[sequence][0].LUTDescriptor[2] - 1
    if "ModalityLUTSequence" in data:
        return 2 ** data.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    largest = 2 ** (data.BitsStored - data.PixelRepresentation) - 1
    return largest * float(data.get("RescaleSlope", 1)) + float(data.get("RescaleIntercept", 0))
