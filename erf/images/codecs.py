"""Decoders for the compressed forms of DICOM, from imagecodecs.

Written to pydicom's protocol for decoding plug-ins; see docs/decisions/0004-permissive-decoders.md for the choice. The
size that a frame claims is compared with the data set's before it is decoded.
"""

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.pixels.common import PhotometricInterpretation
from pydicom.pixels.decoders import base

from erf.images.codestreams import FrameSize, jpeg2000_size, jpeg_size, unwrap_jpeg2000

PLUGIN = "imagecodecs"
"""Name under which pydicom knows these decoders."""

_DECODERS = (
    base.JPEGBaseline8BitDecoder,
    base.JPEGExtended12BitDecoder,
    base.JPEGLosslessDecoder,
    base.JPEGLosslessSV1Decoder,
    base.JPEGLSLosslessDecoder,
    base.JPEGLSNearLosslessDecoder,
    base.JPEG2000LosslessDecoder,
    base.JPEG2000Decoder,
    base.HTJ2KLosslessDecoder,
    base.HTJ2KLosslessRPCLDecoder,
    base.HTJ2KDecoder,
    base.RLELosslessDecoder,
)
_RLE_GAIN = 64
"""Bytes that run-length coding makes of one, at most (DICOM PS3.5, G.3.1)."""

DECODER_DEPENDENCIES = {decoder.UID: ("imagecodecs",) for decoder in _DECODERS}


def is_available(transfer_syntax: str) -> bool:
    """Whether this module decodes a transfer syntax."""
    return transfer_syntax in DECODER_DEPENDENCIES


def register() -> None:
    """Make these decoders known to pydicom."""
    for decoder in _DECODERS:
        if PLUGIN not in decoder.available_plugins:
            decoder.add_plugin(PLUGIN, (__name__, "decode_frame"))


def decode_frame(content: bytes, runner: base.DecodeRunner) -> bytes | bytearray:
    """One compressed frame as bytes, in the order that the runner is told; `ValueError` for one of another size."""
    if runner.transfer_syntax == uid.RLELossless:
        return _decode_runs(content, runner)
    if runner.transfer_syntax in uid.JPEG2000TransferSyntaxes:
        pixels = _decode_jpeg2000(content, runner)
    else:
        pixels = _decode_jpeg(content, runner)
    runner.set_option("bits_allocated", 8 * pixels.itemsize)
    if runner.samples_per_pixel > 1:
        runner.set_option("planar_configuration", 0)
    return pixels.tobytes()


def _decode_jpeg(content: bytes, runner: base.DecodeRunner) -> np.ndarray:
    _check(jpeg_size(content), runner)
    if runner.transfer_syntax in uid.JPEGLSTransferSyntaxes:
        pixels: np.ndarray = imagecodecs.jpegls_decode(content)
        return pixels
    if runner.samples_per_pixel == 1:
        return imagecodecs.jpeg8_decode(content)
    # The same name for both spaces: samples stay as they are stored, and pydicom converts them.
    return imagecodecs.jpeg8_decode(content, colorspace="YCBCR", outcolorspace="YCBCR")


def _decode_jpeg2000(content: bytes, runner: base.DecodeRunner) -> np.ndarray:
    codestream = unwrap_jpeg2000(content)
    _check(jpeg2000_size(codestream), runner)
    if runner.photometric_interpretation in (PhotometricInterpretation.YBR_ICT, PhotometricInterpretation.YBR_RCT):
        runner.set_option("photometric_interpretation", PhotometricInterpretation.RGB)  # undone by the decoder
    return imagecodecs.jpeg2k_decode(codestream, planar=False)


def _decode_runs(content: bytes, runner: base.DecodeRunner) -> bytearray:
    length = int(runner.frame_length())
    if length > _RLE_GAIN * len(content):
        raise ValueError(f"{len(content)} bytes cannot hold {runner.rows}x{runner.columns} pixels")
    pixels = bytearray(length)
    if len(imagecodecs.dicomrle_decode(content, runner.pixel_dtype, out=pixels)) != length:
        raise ValueError("found fewer pixels than expected")
    if runner.samples_per_pixel > 1:
        runner.set_option("planar_configuration", 1)
    return pixels


def _check(found: FrameSize, runner: base.DecodeRunner) -> None:
    expected = FrameSize(runner.rows, runner.columns, runner.samples_per_pixel)
    if found != expected:
        raise ValueError(
            f"the compressed frame claims {found.height}x{found.width} pixels of {found.samples} samples, expected "
            f"{expected.height}x{expected.width} of {expected.samples}"
        )
