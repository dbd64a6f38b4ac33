"""Size of compressed frames, read from their headers before decoding.

Headers are parsed segment by segment from the first byte, following their lengths: entropy-coded data and comments can
contain bytes that look like a header. Anything that violates the standards is refused, so that a decoder which reads on
cannot arrive at another size than the one that was checked.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_MAX_SEGMENTS = 10_000
_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
"""JPEG marker, possibly after fill bytes (ITU-T T.81, B.1.1.2)."""
_START_OF_FRAME = frozenset((*range(0xC0, 0xD0), 0xF7)) - {0xC4, 0xC8, 0xCC}
"""Frame header markers of JPEG (ITU-T T.81, table B.1) and JPEG-LS (T.87, C.1.1)."""
_START_OF_SCAN, _PRESETS = 0xDA, 0xF8
_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xDA)))
_OVERSIZE = 4
"""Type of preset parameters that override the size of a frame (T.87, C.2.4.1.4)."""
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"


@dataclass(frozen=True)
class FrameSize:
    """Size stated by a compressed frame, in pixels, and its samples per pixel."""

    height: int
    width: int
    samples: int


def jpeg_size(content: bytes) -> FrameSize:
    """Read the size of a JPEG or JPEG-LS frame from its header.

    Args:
        content: The compressed frame.

    Returns:
        Height and width in pixels, and samples per pixel.

    Raises:
        ValueError: The header is damaged, or gives no size or several.
    """
    found = None
    for marker, segment in _segments(content):
        if marker == _PRESETS and segment[:1] == bytes([_OVERSIZE]):
            raise ValueError("its size is given twice")
        if marker in _START_OF_FRAME:
            if found:
                raise ValueError("its size is given twice")
            _, height, width, samples = struct.unpack_from(">BHHB", segment)
            found = FrameSize(height, width, samples)
    if found is None:
        raise ValueError("its header gives no size")
    return found


def _segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield marker and content of each segment before the first scan."""
    if content[:2] != b"\xff\xd8":
        raise ValueError("it does not begin as JPEG does")
    place = 2
    for _ in range(_MAX_SEGMENTS):
        match = _MARKER.match(content, place)
        if not match or match[1][0] in _WITHOUT_LENGTH:
            raise ValueError(f"its header is damaged at byte {place}")
        marker, place = match[1][0], match.end()
        if marker == _START_OF_SCAN:
            return
        (length,) = struct.unpack_from(">H", content, place)
        if length < 2 or place + length > len(content):
            raise ValueError(f"its header is damaged at byte {place}")
        yield marker, content[place + 2 : place + length]
        place += length
    raise ValueError(f"its header has more than {_MAX_SEGMENTS} segments")


def jpeg2000_size(codestream: bytes) -> FrameSize:
    """Read the size of a JPEG 2000 codestream from its first segment (ITU-T T.800, A.5.1).

    Args:
        codestream: The compressed frame, without JP2 boxes.

    Returns:
        Height and width in pixels, and samples per pixel.

    Raises:
        ValueError: The header is damaged, or components differ in resolution.
    """
    if codestream[:4] != b"\xff\x4f\xff\x51":
        raise ValueError("it does not begin as JPEG 2000 does")
    right, bottom, left, top = struct.unpack_from(">4I", codestream, 8)
    (samples,) = struct.unpack_from(">H", codestream, 40)
    steps = {codestream[42 + 3 * sample + 1 : 42 + 3 * sample + 3] for sample in range(samples)}
    if steps != {b"\1\1"}:
        raise ValueError("its samples are of several resolutions")
    return FrameSize(bottom - top, right - left, samples)


def unwrap_jpeg2000(content: bytes) -> bytes:
    """Extract the codestream of a frame, which some writers leave in the boxes of a JP2 file (ITU-T T.800, I.4).

    Args:
        content: JP2 file or bare codestream.

    Returns:
        The bare codestream.

    Raises:
        ValueError: The JP2 boxes are damaged.
    """
    if not content.startswith(_JP2_SIGNATURE):
        return content
    place = 0
    for _ in range(_MAX_SEGMENTS):
        length, kind = struct.unpack_from(">I4s", content, place)
        start = place + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", content, start)
            start += 8
        end = place + length if length else len(content)
        if kind == b"jp2c":
            return content[start:end]
        if end < start:
            break
        place = end
    raise ValueError("its JP2 boxes are damaged")
