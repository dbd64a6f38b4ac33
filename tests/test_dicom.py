"""DICOM written by the test itself, in all transfer syntaxes that mammograms come in."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

import erf
from erf.errors import ImageError
from erf.images import list_images, read_image
from erf.images.dicom import read_header

ROOT = Path(__file__).parent.parent
STORED = (erf.draw_phantom(0, size=(96, 64)).pixels >> 4).astype(np.uint16)  # 12 bits


def write(path: Path, stored: np.ndarray = STORED, **tags: Any) -> Path:
    """A mammogram with 12 stored bits; `tags` are set on top."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID
    data.Modality, data.PatientID, data.ImageLaterality, data.ViewPosition = "MG", "P7", "L", "CC"
    data.ImagerPixelSpacing = [0.07, 0.07]
    data.PhotometricInterpretation, data.SamplesPerPixel, data.PixelRepresentation = "MONOCHROME2", 1, 0
    data.Rows, data.Columns = stored.shape[-2:]
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 12, 11
    data.PixelData = stored.astype(np.uint16).tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


def test_uncompressed_pixels_and_header(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm")
    np.testing.assert_array_equal(read_image(path).pixels[0], STORED)
    header = read_header(path)
    assert (header.laterality, header.view, header.patient_id, header.pixel_spacing) == ("left", "CC", "P7", 0.07)


def compress(path: Path, target: Path, syntax: str) -> None:
    """The same file with compressed pixels."""
    data = pydicom.dcmread(path)
    stored = data.pixel_array
    if syntax == "RLELossless":
        data.compress(getattr(uid, syntax))
    else:
        encoded = {
            "JPEGLossless": lambda: imagecodecs.jpeg_encode(stored, lossless=True, predictor=4, bitspersample=12),
            "JPEGLosslessSV1": lambda: imagecodecs.jpeg_encode(stored, lossless=True, predictor=1, bitspersample=12),
            "JPEGLSLossless": lambda: imagecodecs.jpegls_encode(stored),
            "JPEG2000Lossless": lambda: imagecodecs.jpeg2k_encode(stored, codecformat="j2k", reversible=True),
        }[syntax]()
        data.PixelData = encapsulate([bytes(encoded)])
        data["PixelData"].is_undefined_length = True
        data.file_meta.TransferSyntaxUID = getattr(uid, syntax)
    data.save_as(target, enforce_file_format=True)


@pytest.mark.parametrize(
    "syntax", ["RLELossless", "JPEGLossless", "JPEGLosslessSV1", "JPEGLSLossless", "JPEG2000Lossless"]
)
def test_lossless_compression_is_bit_exact(tmp_path: Path, syntax: str) -> None:
    compress(write(tmp_path / "a.dcm"), tmp_path / "b.dcm", syntax)
    assert pydicom.dcmread(tmp_path / "b.dcm").file_meta.TransferSyntaxUID == getattr(uid, syntax)
    np.testing.assert_array_equal(read_image(tmp_path / "b.dcm").pixels[0], STORED)


def test_no_decoder_leaves_its_symbols_to_others() -> None:
    """GDCM loads its libraries for everybody, which breaks Pillow's PNG writer; it is not to come in again."""
    code = (
        "import sys, io, numpy, erf.images\n"
        "from PIL import Image\n"
        "Image.fromarray(numpy.random.default_rng(0).integers(0, 255, (300, 400), dtype='u1')).save(io.BytesIO(), 'png')\n"
        "print('gdcm' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "False"


def test_monochrome1_is_turned_so_that_tissue_is_bright(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", 4095 - STORED, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_image(path).pixels[0], STORED)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_becomes_background(tmp_path: Path, photometric: str) -> None:
    stored = STORED + 100
    stored[:10] = 4000
    path = write(tmp_path / "a.dcm", stored, PixelPaddingValue=4000, PhotometricInterpretation=photometric)
    pixels = read_image(path).pixels[0]
    assert (pixels[:10] == pixels.min()).all()
    expected = stored[10:] if photometric == "MONOCHROME2" else 4095 - stored[10:].astype(int)
    np.testing.assert_array_equal(pixels[10:], expected)


def test_rescale_and_window(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", RescaleSlope=2, RescaleIntercept=-5)
    np.testing.assert_array_equal(read_image(path).pixels[0], STORED.astype(float) * 2 - 5)
    path = write(tmp_path / "b.dcm", WindowCenter=1000, WindowWidth=500)
    # DICOM PS3.3 C.11.2.1.2.1, written out: linear between c - 0.5 -+ (w - 1) / 2, to the range of the stored bits.
    expected = np.clip(((STORED - 999.5) / 499 + 0.5) * 4095, 0, 4095)
    np.testing.assert_allclose(read_image(path).pixels[0], expected, rtol=1e-6, atol=1e-3)


def test_unprocessed_images_carry_a_note(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", PresentationIntentType="FOR PROCESSING")
    assert "FOR PROCESSING" in read_image(path).notes[0]


def test_side_from_other_tags(tmp_path: Path) -> None:
    assert read_header(write(tmp_path / "a.dcm", ImageLaterality="", Laterality="R")).laterality == "right"
    anatomy, group = Dataset(), Dataset()
    anatomy.FrameLaterality = "R"
    group.FrameAnatomySequence = [anatomy]
    tags: dict[str, Any] = {"ImageLaterality": "", "SharedFunctionalGroupsSequence": [group]}
    assert read_header(write(tmp_path / "b.dcm", **tags)).laterality == "right"
    code = Dataset()
    code.CodeValue = "R-10226"
    assert read_header(write(tmp_path / "c.dcm", ViewCodeSequence=[code])).view == "MLO"


def test_files_without_a_suffix_are_found(tmp_path: Path) -> None:
    write(tmp_path / "IM0001")
    (tmp_path / "README").write_text("no image")
    (image,) = list_images(tmp_path)
    assert (image.laterality, image.patient_id) == ("left", "P7")
    np.testing.assert_array_equal(image.decode().pixels[0], STORED)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"NumberOfFrames": 3, "PixelData": STORED.tobytes() * 3}, "found 3 frames, expected a single image"),
        ({"PixelData": STORED.tobytes()[:100]}, "DICOM cannot be decoded"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "palette colours|cannot be decoded"),
    ],
)
def test_dicom_that_cannot_be_used(tmp_path: Path, tags: dict[str, Any], message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        read_image(write(tmp_path / "a.dcm", **tags))
    assert "\n" not in str(caught.value)


def table(entries: int, claimed: int, bits: int) -> Dataset:
    """A LUT of so many entries whose descriptor claims another number."""
    item = Dataset()
    item.LUTDescriptor = [claimed, 0, bits]
    item["LUTDescriptor"].VR = "US"
    item.LUTData = np.linspace(0, 2**bits - 1, entries).astype("<u2").tobytes()
    item["LUTData"].VR = "OW"
    return item


@pytest.mark.filterwarnings("ignore:::pydicom")
@pytest.mark.parametrize(
    ("tags", "note"),
    [
        ({"WindowCenter": 2000, "WindowWidth": 0}, "window of centre 2000 and width 0 not used"),
        ({"WindowCenter": 2000, "WindowWidth": -5}, "width -5 not used"),
        ({"WindowCenter": 2000, "WindowWidth": "nan"}, "width nan not used"),
        ({"WindowCenter": 2000, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"}, "width 0 not used"),
        ({"WindowCenter": 2000, "WindowWidth": None}, ""),
        ({"RescaleSlope": None, "RescaleIntercept": None}, ""),
        ({"RescaleSlope": None, "RescaleIntercept": 0}, ""),
        (
            {"VOILUTSequence": [table(100, 4096, 12)]},
            "VOI LUT not used: a LUT of 100 entries whose descriptor says 4096",
        ),
        ({"VOILUTSequence": [table(4096, 4096, 3)]}, "VOI LUT not used: a LUT of 3 bits"),
        ({"VOILUTSequence": [Dataset()]}, "VOI LUT not used: a LUT without descriptor or data"),
        ({"VOILUTSequence": []}, ""),
        ({"NumberOfFrames": 0}, ""),
        ({"PixelPaddingValue": None}, ""),
        ({"PixelData": (STORED | 0xA000).tobytes()}, ""),
        ({"PixelData": STORED.tobytes() + bytes(2)}, ""),
    ],
)
def test_a_wrong_view_is_left_out_and_told(tmp_path: Path, tags: dict[str, Any], note: str) -> None:
    decoded = read_image(write(tmp_path / "a.dcm", **tags))
    np.testing.assert_array_equal(decoded.pixels[0], STORED)
    assert len(decoded.notes) == (note != "")
    assert note in "".join(decoded.notes)


@pytest.mark.filterwarnings("ignore:::pydicom")
def test_an_unknown_voi_function_is_read_as_linear(tmp_path: Path) -> None:
    window: dict[str, Any] = {"WindowCenter": 1000, "WindowWidth": 500}
    linear = read_image(write(tmp_path / "a.dcm", **window))
    unknown = read_image(write(tmp_path / "b.dcm", **window, VOILUTFunction="CUBIC"))
    np.testing.assert_array_equal(linear.pixels, unknown.pixels)
    assert unknown.notes == ("VOI LUT function 'CUBIC' is not known: read as LINEAR",)


def test_tables_of_8_bits(tmp_path: Path) -> None:
    """In pydicom, places beyond 255 wrap in such a table."""
    item = table(4096, 4096, 8)
    expected = np.frombuffer(item.LUTData, "<u2")[STORED]
    np.testing.assert_array_equal(read_image(write(tmp_path / "a.dcm", VOILUTSequence=[item])).pixels[0], expected)


@pytest.mark.filterwarnings("ignore:::pydicom")
@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({"RescaleSlope": 0, "RescaleIntercept": 0}, "rescale slope 0 and intercept 0 give no image"),
        ({"RescaleSlope": "nan", "RescaleIntercept": 0}, "rescale slope nan"),
        ({"ModalityLUTSequence": [table(10, 4096, 16)]}, "a LUT of 10 entries whose descriptor says 4096"),
        ({"HighBit": 15}, "found 12 bits below bit 15"),
        ({"Rows": 0}, "'Rows' value of '0' is invalid"),
        ({"Rows": 65535, "Columns": 65535}, "the header claims 65535x65535x1 pixels"),
        ({"Rows": 1}, "found more pixels than its header states"),
        ({"PixelData": STORED.tobytes() * 3}, "found more pixels than its header states"),
        ({"PixelData": STORED.tobytes()[:-2]}, "less than expected"),
        ({"SamplesPerPixel": 2, "Rows": 48}, "must be 1 or 3"),
        ({"PixelRepresentation": 2}, "must be 0 or 1"),
        ({"PhotometricInterpretation": ""}, "Unknown"),
        ({"BitsStored": 0, "HighBit": None}, "'Bits Stored' value of '0' is invalid"),
        ({"BitsAllocated": 12}, "'Bits Allocated' value of '12' is invalid"),
    ],
)
def test_odd_headers_give_one_line(tmp_path: Path, tags: dict[str, Any], message: str) -> None:
    with pytest.raises(ImageError, match=f"a.dcm: .*{message}") as caught:
        read_image(write(tmp_path / "a.dcm", **tags))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tag", ["PixelData", "Rows", "BitsAllocated", "BitsStored", "SamplesPerPixel"])
def test_missing_tags_give_one_line(tmp_path: Path, tag: str) -> None:
    data = pydicom.dcmread(write(tmp_path / "a.dcm"))
    del data[tag]
    data.save_as(tmp_path / "a.dcm")
    with pytest.raises(ImageError, match=r"a.dcm: DICOM cannot be decoded"):
        read_image(tmp_path / "a.dcm")


def test_files_named_by_a_uid_are_found(tmp_path: Path) -> None:
    write(tmp_path / "1.2.840.113681.5")
    (tmp_path / "notes.1").write_text("no image")
    (image,) = list_images(tmp_path)
    np.testing.assert_array_equal(image.decode().pixels[0], STORED)


def test_truncated_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:1500])
    with pytest.raises(ImageError, match="DICOM cannot be decoded"):
        read_image(path)
