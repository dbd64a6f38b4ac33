"""Decoders of compressed DICOM transfer syntaxes, based on imagecodecs.

Implements pydicom's protocol for decoding plug-ins; docs/decisions/0004-permissive-decoders.md gives the reasons. The
size stated by a compressed frame is compared with that of the data set before decoding.
"""

import imagecodecs
import numpy as np
from pydicom import uid
from pydicom.pixels.common import PhotometricInterpretation
from pydicom.pixels.decoders import base

from erf.images.codestreams import FrameSize, jpeg2000_size, jpeg_size, unwrap_jpeg2000

PLUGIN = "imagecodecs"
"""Name under which these decoders are registered with pydicom."""

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
"""Largest expansion ratio of run-length coding (DICOM PS3.5, G.3.1)."""

DECODER_DEPENDENCIES = {decoder.UID: ("imagecodecs",) for decoder in _DECODERS}


def is_available(transfer_syntax: str) -> bool:
    """Whether this module can decode a transfer syntax."""
    return transfer_syntax in DECODER_DEPENDENCIES


def register() -> None:
    """Register these decoders with pydicom."""
    for decoder in _DECODERS:
        if PLUGIN not in decoder.available_plugins:
            decoder.add_plugin(PLUGIN, (__name__, "decode_frame"))


def decode_frame(content: bytes, runner: base.DecodeRunner) -> bytes | bytearray:
    """Decode one compressed frame for pydicom.

    Args:
        content: The compressed frame.
        runner: pydicom's decoder state; its options are updated to describe the decoded bytes.

    Returns:
        The decoded pixels, in the planar configuration and bit depth set on `runner`.

    Raises:
        ValueError: The frame has another size than the data set states.
    """
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
    # Equal input and output colour spaces keep samples as stored; pydicom converts them.
    return imagecodecs.jpeg8_decode(content, colorspace="YCBCR", outcolorspace="YCBCR")


def _decode_jpeg2000(content: bytes, runner: base.DecodeRunner) -> np.ndarray:
    codestream = unwrap_jpeg2000(content)
    _check(jpeg2000_size(codestream), runner)
    if runner.photometric_interpretation in (PhotometricInterpretation.YBR_ICT, PhotometricInterpretation.YBR_RCT):
        runner.set_option(
            "photometric_interpretation", PhotometricInterpretation.RGB
        )  # the decoder has already converted
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
