"""Write valid DICOM files of every transfer syntax with random sizes, bits, signs, steps, comments, fragments."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, DigitalMammographyXRayImageStorageForPresentation, generate_uid

NATIVE = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
)
LOSSLESS = (
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.HTJ2KLossless,
    uid.HTJ2KLosslessRPCL,
    uid.RLELossless,
)
LOSSY = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K)
UNSIGNED = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless)
LOOK_ALIKES = (
    b"\xff\xc0\x00\x11\x08\xff\xdc\xff\xdc\x03",  # SOF0 of 65500 x 65500
    b"\xff\xc3\x00\x0b\x10\xff\xdc\xff\xdc\x01",  # SOF3
    b"\xff\xf7\x00\x0b\x10\xff\xdc\xff\xdc\x01",  # SOF55
    b"\xff\x51\x00\x29\x00\x00" + struct.pack(">II", 65500, 65500),  # SIZ
    b"\xff\xd8\xff\xd9\xfe\xff\xdd\xe0\x00\x00\x00\x00",
)


@dataclass(frozen=True)
class Intact:
    """A valid file, its original pixels, and the largest error of lossy compression."""

    path: Path
    stored: NDArray[Any]
    """Original pixels (H, W), or (H, W, 3) for colour images."""
    tolerance: int
    data: Dataset


def write_intact(path: Path, syntax: UID, seed: int, steps: bool = True) -> Intact:
    """Write a valid file that depends only on the arguments.

    Args:
        path: path of the file.
        syntax: transfer syntax.
        seed: seed of all random choices.
        steps: whether to add Modality and VOI transformations; without them, stored values are display values.
    """
    rng = np.random.default_rng((seed, sum(map(ord, syntax))))
    colour = syntax not in (uid.JPEGExtended12Bit, uid.JPEGLSNearLossless) and rng.random() < 0.15
    bits = _bits(rng, syntax, colour)
    signed = not colour and syntax not in UNSIGNED and rng.random() < 0.3
    shape = tuple(int(length) for length in rng.integers(1, 90, 2)) if rng.random() < 0.8 else (333, 257)
    stored = _draw(rng, shape, bits, signed, colour)
    data = _dataset(rng, syntax, stored, bits, signed)
    if steps:
        _add_steps(rng, data, bits, signed)
    elif stored.ndim == 2:
        data.PhotometricInterpretation = "MONOCHROME2"
    tolerance = 0
    if syntax in NATIVE:
        _store(rng, data, stored, syntax)
    else:
        frame, tolerance = _encode(rng, syntax, stored, bits, data)
        _encapsulate(rng, data, frame)
    data.save_as(path, enforce_file_format=True)
    return Intact(path, stored, tolerance, data)


def _bits(rng: np.random.Generator, syntax: UID, colour: bool) -> int:
    if colour or syntax == uid.JPEGBaseline8Bit:
        return 8
    return 12 if syntax == uid.JPEGExtended12Bit else int(rng.choice([8, 10, 12, 14, 16]))


def _draw(rng: np.random.Generator, shape: tuple[int, ...], bits: int, signed: bool, colour: bool) -> NDArray[Any]:
    """Draw noise, or a ramp with a little noise, over the range of values."""
    shape = (*shape, 3) if colour else shape
    low = -(2 ** (bits - 1)) if signed else 0
    values = rng.integers(0, 2**bits, shape)
    if rng.random() < 0.5:
        ramp = np.linspace(0, 2**bits - 1, int(np.prod(shape))).reshape(shape)
        values = np.clip(ramp + rng.normal(0, 3, shape), 0, 2**bits - 1).astype(int)
    values.flat[0], values.flat[-1] = 0, 2**bits - 1  # never constant, if there are at least two pixels
    return (values + low).astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")


def _dataset(rng: np.random.Generator, syntax: UID, stored: NDArray[Any], bits: int, signed: bool) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID
    data.Modality, data.PatientName, data.ImageLaterality = "MG", "Doe^Jane", "L"
    data.ImageComments = "x" * int(rng.integers(0, 9000))
    data.Rows, data.Columns = stored.shape[:2]
    data.SamplesPerPixel = 1 if stored.ndim == 2 else 3
    data.PhotometricInterpretation = str(rng.choice(["MONOCHROME1", "MONOCHROME2"])) if stored.ndim == 2 else "RGB"
    if stored.ndim == 3:
        data.PlanarConfiguration = 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 8 * stored.itemsize, bits, bits - 1
    data.PixelRepresentation = int(signed)
    return data


def _add_steps(rng: np.random.Generator, data: Dataset, bits: int, signed: bool) -> None:
    """Add Modality and VOI transformations and padding, in any combination that the standard allows."""
    if data.SamplesPerPixel == 3:
        return
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    wraps = signed and bits in (8, 16)  # the differences that pydicom looks up in a table
    step = rng.choice(["none", "rescale", "LUT" if not wraps else "none"], p=[0.4, 0.4, 0.2])
    if step == "rescale":
        data.RescaleSlope, data.RescaleIntercept = (
            str(rng.choice(["1", "0.5", "2.25"])),
            str(rng.choice(["0", "-1024"])),
        )
    elif step == "LUT":
        data.ModalityLUTSequence = [_table(rng, low, high, 16, signed)]
        data.ModalityLUTSequence[0].ModalityLUTType = "US"
    view = rng.choice(["none", "window", "windows", "LUT"], p=[0.3, 0.3, 0.2, 0.2])
    if view == "LUT" and step != "rescale" and not wraps:
        first, last = (0, 2**16 - 1) if step == "LUT" else (low, high)
        data.VOILUTSequence = [_table(rng, first, last, int(rng.choice([10, 12, 16])), signed and step == "none")]
    elif view in ("window", "windows"):
        data.WindowCenter, data.WindowWidth = [str((low + high) // 2), "7"], [str((high - low) // 2), "3"]
        if view == "window":
            data.WindowCenter, data.WindowWidth = data.WindowCenter[0], data.WindowWidth[0]
        if rng.random() < 0.6:
            data.VOILUTFunction = str(rng.choice(["LINEAR", "LINEAR_EXACT", "SIGMOID"]))
    if rng.random() < 0.3:
        data.PixelPaddingValue = low
        data["PixelPaddingValue"].VR = "SS" if signed else "US"


def _table(rng: np.random.Generator, low: int, high: int, bits: int, signed: bool) -> Dataset:
    """Return an increasing lookup table for values from low to high, or for a part of them."""
    item = Dataset()
    entries = int(min(high - low + 1, rng.choice([64, 1024, 2**16])))
    item.LUTDescriptor = [entries % 2**16, low, bits]
    item["LUTDescriptor"].VR = "SS" if signed and entries < 2**15 else "US"
    if item["LUTDescriptor"].VR == "US":
        item.LUTDescriptor = [entries % 2**16, max(low, 0), bits]
    item.LUTData = np.sort(rng.integers(0, 2**bits, entries)).astype("<u2").tobytes()
    item["LUTData"].VR = "OW"
    return item


def _store(rng: np.random.Generator, data: Dataset, stored: NDArray[Any], syntax: UID) -> None:
    if stored.ndim == 3 and rng.random() < 0.5:
        data.PlanarConfiguration = 1
        stored = np.moveaxis(stored, -1, 0)
    order: Literal["<", ">"] = "<" if syntax.is_little_endian else ">"
    content = stored.astype(stored.dtype.newbyteorder(order)).tobytes()
    data.PixelData = content + b"\0" * (len(content) % 2)
    data["PixelData"].VR = "OB" if stored.itemsize == 1 and not syntax.is_implicit_VR else "OW"
    if order == ">":
        for sequence in (data.get("ModalityLUTSequence"), data.get("VOILUTSequence")):
            for item in sequence or ():
                item.LUTData = np.frombuffer(item.LUTData, "<u2").astype(">u2").tobytes()


def _encode(rng: np.random.Generator, syntax: UID, stored: NDArray[Any], bits: int, data: Dataset) -> tuple[bytes, int]:
    """Return a compressed frame, and the largest error of its pixels."""
    if syntax == uid.RLELossless:
        from pydicom.pixels.encoders.base import RLELosslessEncoder
        from pydicom.pixels.utils import as_pixel_options

        return RLELosslessEncoder.encode(stored, **as_pixel_options(data)), 0
    unsigned = stored.view(f"u{stored.itemsize}") & np.array(2**bits - 1, f"u{stored.itemsize}")
    bits_of_jpeg: dict[str, Any] = {"bitspersample": bits}
    encoders: dict[UID, tuple[Callable[[], bytes | bytearray], int]] = {
        uid.JPEGBaseline8Bit: (lambda: imagecodecs.jpeg8_encode(stored, level=int(rng.integers(40, 100))), 255),
        uid.JPEGExtended12Bit: (lambda: imagecodecs.jpeg8_encode(stored, level=95, **bits_of_jpeg), 64),
        uid.JPEGLossless: (
            lambda: imagecodecs.jpeg8_encode(
                unsigned, lossless=True, predictor=int(rng.integers(1, 8)), **bits_of_jpeg
            ),
            0,
        ),
        uid.JPEGLosslessSV1: (
            lambda: imagecodecs.jpeg8_encode(unsigned, lossless=True, predictor=1, **bits_of_jpeg),
            0,
        ),
        uid.JPEGLSLossless: (lambda: _jpegls(stored, 0), 0),
        uid.JPEGLSNearLossless: (lambda: _jpegls(stored, 2), 2),
        uid.JPEG2000Lossless: (lambda: _jpeg2000(rng, stored, bits, reversible=True), 0),
        uid.JPEG2000: (lambda: _jpeg2000(rng, stored, bits, reversible=False, level=40), 2**bits),
        uid.HTJ2KLossless: (lambda: imagecodecs.htj2k_encode(stored, reversible=True), 0),
        uid.HTJ2KLosslessRPCL: (lambda: imagecodecs.htj2k_encode(stored, reversible=True), 0),
        uid.HTJ2K: (lambda: imagecodecs.htj2k_encode(stored, reversible=False, level=0.01), 2**bits),
    }
    encode, tolerance = encoders[syntax]
    if stored.ndim == 3:
        data.PhotometricInterpretation = {
            uid.JPEGBaseline8Bit: "YBR_FULL_422",
            uid.JPEG2000Lossless: "YBR_RCT",
            uid.JPEG2000: "YBR_ICT",
            uid.HTJ2KLossless: "YBR_RCT",
            uid.HTJ2KLosslessRPCL: "YBR_RCT",
            uid.HTJ2K: "YBR_ICT",
        }.get(syntax, "RGB")
    frame = bytes(encode())
    return (_comment_jpeg2000 if syntax in uid.JPEG2000TransferSyntaxes else _comment_jpeg)(rng, frame), tolerance


def _jpegls(stored: NDArray[Any], near: int) -> bytes:
    room = bytearray(4 * stored.nbytes + 4096)  # noise can become larger by compression
    return bytes(imagecodecs.jpegls_encode(stored.view(f"u{stored.itemsize}"), level=near, out=room))


def _jpeg2000(rng: np.random.Generator, stored: NDArray[Any], bits: int, **options: Any) -> bytes:
    codecformat = "jp2" if rng.random() < 0.2 and stored.ndim == 2 else "j2k"
    found = imagecodecs.jpeg2k_encode(stored, codecformat=codecformat, bitspersample=bits, resolutions=2, **options)
    return bytes(found)


def _comments(rng: np.random.Generator, marker: bytes) -> bytes:
    """Return comment segments of random length that contain byte patterns resembling headers."""
    found = b""
    for _ in range(int(rng.integers(0, 5))):
        length = int(rng.integers(0, 60_000)) if rng.random() < 0.3 else int(rng.integers(0, 50))
        text = b"".join(LOOK_ALIKES) + rng.bytes(length)
        found += marker + struct.pack(">H", len(text) + 2) + text
    return found


def _comment_jpeg(rng: np.random.Generator, frame: bytes) -> bytes:
    return frame[:2] + _comments(rng, b"\xff\xfe") + frame[2:]


def _comment_jpeg2000(rng: np.random.Generator, frame: bytes) -> bytes:
    """Insert comments after SIZ; JP2 files stay unchanged, because the lengths of their boxes would change."""
    if frame[:4] != b"\xff\x4f\xff\x51":
        return frame
    end = 4 + struct.unpack_from(">H", frame, 4)[0]
    return frame[:end] + _comments(rng, b"\xff\x64") + frame[end:]


def _encapsulate(rng: np.random.Generator, data: Dataset, frame: bytes) -> None:
    fragments = (
        int(rng.integers(1, 5)) if len(frame) > 100 and data.file_meta.TransferSyntaxUID != uid.RLELossless else 1
    )
    data.PixelData = encapsulate([frame], fragments_per_frame=fragments, has_bot=bool(rng.integers(2)))
    data["PixelData"].is_undefined_length = True
    data["PixelData"].VR = "OB"
