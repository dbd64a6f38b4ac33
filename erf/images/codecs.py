"""Decoders for the compressed forms of DICOM that pydicom has none of its own for, from imagecodecs.

Written to pydicom's protocol for decoding plug-ins; see docs/decisions/0004-permissive-decoders.md for the choice.
"""

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.pixels.decoders import base

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
