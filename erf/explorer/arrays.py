"""Arrays as the page receives them: 16 bits per value, at the resolution that the zoom needs.

A table of 65,536 colours then turns the bits into a picture, without a conversion.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from erf.box import Box
from erf.images.thumbnail import block_means

LEVELS = 6
"""Coarsest level: blocks of 64 pixels."""

_LARGEST = 65535


@dataclass(frozen=True)
class Encoded:
    """Bytes of an array, little endian, and what the page must know about it."""

    content: bytes
    headers: Mapping[str, str]


def encode_map(map_: NDArray[np.floating], box: Box[float], largest: float, level: int = 0) -> Encoded:
    """Encode a map in half precision, relative to its largest magnitude.

    Args:
        map_: (h, w).
        box: part of the input that it covers, in pixels.
        largest: largest magnitude of the map; 0 of a map that is zero.
        level: binary logarithm of the side of the blocks that are averaged, in pixels.
    """
    values = block_means(map_, 2**level) if level else map_
    scaled = np.asarray(values / largest if largest else values, np.float16)
    return _encoded(scaled, box, {"X-Max": repr(largest)})


def encode_image(pixels: NDArray[np.generic], level: int = 0, spacing: float = float("nan")) -> Encoded:
    """Encode an image (C, H, W) of the file's own scale in 16 bits, channels last.

    Integers of 16 bits or less keep their values; others are scaled to their range.
    """
    height, width = pixels.shape[1:]
    low, high = _range(pixels)
    planes = [block_means(plane, 2**level) if level else plane for plane in pixels]
    stacked = (np.stack(planes, -1).astype(np.float64) - low) * (_LARGEST / ((high - low) or 1))
    values = np.rint(stacked).clip(0, _LARGEST).astype(np.uint16)
    center, span = _window(pixels)
    return _encoded(
        values if len(planes) > 1 else values[..., 0],
        Box(0, 0, height, width),
        {
            "X-Range": f"{low!r},{high!r}",
            "X-Levels": str(LEVELS),
            "X-Window": f"{center!r},{span!r}",
            "X-Spacing": f"{spacing:g}" if np.isfinite(spacing) else "",
        },
    )


def _range(pixels: NDArray[np.generic]) -> tuple[float, float]:
    low, high = float(pixels.min()), float(pixels.max())
    is_exact = low >= 0 and high <= _LARGEST and bool((pixels == np.rint(pixels)).all())
    return (0.0, float(_LARGEST)) if is_exact else (low, high)


def _window(pixels: NDArray[np.generic]) -> tuple[float, float]:
    """Return centre and width of the values above the darkest, without the top hundredth, which may be a marker."""
    sparse = pixels[..., ::8, ::8].astype(np.float64)
    darkest = float(sparse.min())
    above = sparse[sparse > darkest]
    low, high = np.percentile(above, (0.5, 99)) if above.size else (darkest, darkest + 1)
    return float((low + high) / 2), float(max(high - low, np.finfo(np.float32).eps))


def _encoded(values: NDArray[np.generic], box: Box[float], headers: Mapping[str, str]) -> Encoded:
    little = np.ascontiguousarray(values).astype(values.dtype.newbyteorder("<"), copy=False)
    about = {"X-Shape": ",".join(map(str, values.shape)), "X-Box": ",".join(f"{edge:g}" for edge in box)}
    return Encoded(little.tobytes(), about | dict(headers))
