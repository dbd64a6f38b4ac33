"""Fit: how an image is brought to the input size of a network.

With `squash` and `crop`, pixels are those of torchvision's Resize and CenterCrop of a Pillow image, so that networks
see what they saw in training.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from erf.errors import InputError

FITS = {
    "pad": "not resampled: padded or cropped, keeping the edge of the chest wall in place",
    "letterbox": "scaled with its aspect ratio to the largest size that fits, then padded as with `pad`",
    "crop": "scaled with its aspect ratio until it covers the input, of which the centre is taken; `crop:0.875` for "
    "the central share of a larger one",
    "squash": "scaled to the input's height and width, whatever its aspect ratio",
}
"""Fits by name."""

INTERPOLATIONS = {
    "nearest": Pillow.Resampling.NEAREST,
    "bilinear": Pillow.Resampling.BILINEAR,
    "bicubic": Pillow.Resampling.BICUBIC,
    "lanczos": Pillow.Resampling.LANCZOS,
    "box": Pillow.Resampling.BOX,
    "hamming": Pillow.Resampling.HAMMING,
}
"""Pillow's filters by name; all but `nearest` average over the pixels that a smaller image merges."""


@dataclass(frozen=True)
class Fit:
    """Parsed fit: its name, and the share of a larger image of which the centre is taken."""

    name: str
    share: float = 1.0

    @classmethod
    def parse(cls, text: str) -> "Fit":
        """Parse `NAME` or `NAME:SHARE`; raises `InputError` for anything else."""
        name, colon, share = text.partition(":")
        try:
            found = cls(name, float(share) if colon else 1.0)
        except ValueError:
            found = cls("")
        if found.name not in FITS or not 0.1 <= found.share <= 1 or (colon and name not in ("crop", "squash")):
            raise InputError(f"fit '{text}' not known; expected one of {', '.join(FITS)}, or crop:SHARE")
        return found

    def target(self, shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) to which an image is scaled, before it is padded or cropped to `size`."""
        if self.name == "pad":
            return shape
        (height, width), (rows, columns) = shape, size
        if self.name == "letterbox":
            scale = min(rows / height, columns / width)
            return max(1, min(rows, round(scale * height))), max(1, min(columns, round(scale * width)))
        rows, columns = int(rows / self.share), int(columns / self.share)
        if self.name == "squash":
            return rows, columns
        if rows / height >= columns / width:
            return rows, max(columns, int(rows * width / height))
        return max(rows, int(columns * height / width)), columns


def resize(pixels: NDArray[Any], size: tuple[int, int], interpolation: str) -> NDArray[Any]:
    """Scale each channel of an image (C, H, W) with Pillow: 8-bit pixels to 8 bits, others in float32."""
    planes = pixels if pixels.dtype == np.uint8 else pixels.astype(np.float32)
    method = INTERPOLATIONS[interpolation]
    return np.stack([np.asarray(Pillow.fromarray(plane).resize(size[::-1], method)) for plane in planes])


def middle(pixels: NDArray[Any], size: tuple[int, int]) -> tuple[NDArray[Any], int, int]:
    """Cut the centre of an image (C, H, W) that covers `size`; also return the frame row and column of its first."""
    top, left = (round((length - frame) / 2) for length, frame in zip(pixels.shape[1:], size, strict=True))
    return pixels[:, top : top + size[0], left : left + size[1]], -top, -left
