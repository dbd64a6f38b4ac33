"""Decoders for the compressed forms of DICOM that pydicom has none of its own for, from imagecodecs.

Written to pydicom's protocol for decoding plug-ins; see docs/decisions/0004-permissive-decoders.md for the choice.
"""

import re
import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.pixels.decoders import base

from erf.images.image import check_size

_HEADER_BYTES = 1 << 16
_FRAME_HEADERS = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf\xf7]..[\x02-\x10](....)", re.DOTALL)
"""Of JPEG and JPEG-LS (ITU-T T.81, B.2.2; T.87, C.2.2): marker, length, precision, height, width."""
_SIZ = re.compile(rb"\xff\x51....(........)", re.DOTALL)
"""Of JPEG 2000 (ITU-T T.800, A.5.1): marker, length, capabilities, width, height."""

_JPEG = (uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
_JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)

DECODER_DEPENDENCIES = dict.fromkeys((*_JPEG, *_JPEG_LS), ("imagecodecs",))


def is_available(transfer_syntax: str) -> bool:
    """Whether this module decodes a transfer syntax."""
    return transfer_syntax in DECODER_DEPENDENCIES


def decode_frame(content: bytes, runner: base.DecodeRunner) -> bytes:
    """One compressed frame as bytes, row by row, colours interleaved."""
    decode = imagecodecs.jpegls_decode if runner.transfer_syntax in _JPEG_LS else imagecodecs.jpeg_decode
    pixels: np.ndarray = decode(content)
    runner.set_option("bits_allocated", 8 * pixels.itemsize)
    if pixels.ndim > 2:
        runner.set_option("planar_configuration", 0)
    return pixels.tobytes()


def register() -> None:
    """Make these decoders known to pydicom."""
    for decoder in (
        base.JPEGExtended12BitDecoder,
        base.JPEGLosslessDecoder,
        base.JPEGLosslessSV1Decoder,
        base.JPEGLSLosslessDecoder,
        base.JPEGLSNearLosslessDecoder,
    ):
        decoder.add_plugin("imagecodecs", (__name__, "decode_frame"))


def check_frame_size(path: Path, data: Any) -> None:
    """Refuse a compressed frame whose own header claims more pixels than an image may have."""
    if "PixelData" not in data or not data.file_meta.TransferSyntaxUID.is_compressed:
        return
    for marker in _FRAME_HEADERS.finditer(data.PixelData[:_HEADER_BYTES]):
        height, width = struct.unpack(">HH", marker[1])
        check_size(path, height, width)
    for marker in _SIZ.finditer(data.PixelData[:_HEADER_BYTES]):
        width, height = struct.unpack(">II", marker[1])
        check_size(path, height, width)
