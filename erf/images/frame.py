"""Preprocessing of decoded pixels: padding or cropping to the model's frame, channels, intensity scale."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from erf.errors import ImageError, InputError
from erf.images.image import Decoded, Image, Placement, Sample
from erf.images.laterality import laterality_from_tissue

NORMALISATIONS = {
    "standardise": "each framed image to mean 0 and standard deviation 1, background included",
    "unit": "integer pixels divided by the largest value of their type",
    "none": "pixels as they are",
}


@dataclass(frozen=True)
class Framing:
    """Preprocessing that brings images to a single shape.

    An image is mirrored only if `mirror` and resampled only if `resample` is set. It is padded with its own darkest
    value or cropped, keeping the edge of the chest wall in place. Vertically an MLO view is aligned at its top, any
    other at its middle.
    """

    size: tuple[int, int]
    """(height, width) of the frame, in pixels."""
    channels: int = 1
    normalisation: str = "standardise"
    resample: bool = False
    """Whether to scale the image, keeping its aspect ratio, to the largest size that fits the frame."""
    mirror: bool = False
    """Whether to mirror the framed image left to right, as a test of the network."""

    def __post_init__(self) -> None:
        if self.normalisation not in NORMALISATIONS:
            known = ", ".join(NORMALISATIONS)
            raise InputError(f"normalisation '{self.normalisation}' not known; expected one of {known}")
        if min(self.size) < 1:
            raise InputError(f"frame of {self.size[0]}x{self.size[1]} pixels; expected a positive height and width")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, H, W) of the preprocessed image."""
        return (self.channels, *self.size)

    def apply(self, image: Image, decoded: Decoded) -> Sample:
        """Frame and normalise one image.

        Args:
            image: The image's metadata; view and laterality determine its alignment.
            decoded: Its pixels (C, H, W), with one channel or as many as the frame has.

        Returns:
            The model input, its position in the frame, and the notes of the file.

        Raises:
            ImageError: The channels do not match, or the pixels cannot be normalised.
        """
        seen = laterality_from_tissue(decoded.pixels)
        pixels = _with_channels(image, decoded.pixels, self.channels)
        before = pixels.shape[1]
        if self.resample:
            pixels = _fit(pixels, self.size)
        scale = pixels.shape[1] / before
        framed, top, left = _place(pixels, self.size, _anchor(image.view), seen or image.laterality)
        placement = Placement(scale, top, left, self.size[1] if self.mirror else 0)
        if self.mirror:
            framed = np.ascontiguousarray(framed[..., ::-1])
        notes = decoded.notes
        if image.laterality and seen and seen != image.laterality:
            notes += (f"labelled {image.laterality}, but the tissue lies at the {seen} edge: mirrored or mislabelled",)
        pixels = _normalise(image, framed, self.normalisation, decoded.pixels.dtype)
        return Sample(image, pixels, decoded.sha256, notes, placement)


def _with_channels(image: Image, pixels: NDArray[Any], channels: int) -> NDArray[np.float32]:
    found = len(pixels)
    if found not in (channels, 1):
        raise ImageError(f"{image.path}: found {found} channels, expected {channels}; convert the image to greyscale")
    wide = pixels.astype(np.float32)  # always a copy, so that normalisation can work in place
    return wide if found == channels else np.repeat(wide, channels, axis=0)


def _fit(pixels: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    scale = min(size[0] / pixels.shape[1], size[1] / pixels.shape[2])
    height, width = (
        max(1, min(limit, round(scale * length))) for limit, length in zip(size, pixels.shape[1:], strict=True)
    )
    planes = [Pillow.fromarray(plane).resize((width, height), Pillow.Resampling.BILINEAR) for plane in pixels]
    return np.stack([np.asarray(plane, dtype=np.float32) for plane in planes])


def _anchor(view: str) -> str:
    """Vertical alignment in the frame: the pectoral muscle of an MLO view runs into the top edge."""
    return "start" if view.upper() == "MLO" else "middle"


def _place(
    pixels: NDArray[np.float32], size: tuple[int, int], vertical: str, side: str
) -> tuple[NDArray[np.float32], int, int]:
    """Pad or crop an image to the frame; also return the frame row and column of its first row and column."""
    if pixels.shape[1:] == size:
        return pixels, 0, 0
    horizontal = {"left": "start", "right": "end", "": "middle"}[side]
    rows = _overlap(pixels.shape[1], size[0], vertical)
    columns = _overlap(pixels.shape[2], size[1], horizontal)
    framed = np.full((len(pixels), *size), pixels.min(), dtype=np.float32)
    framed[:, rows[1], columns[1]] = pixels[:, rows[0], columns[0]]
    return framed, rows[1].start - rows[0].start, columns[1].start - columns[0].start


def _overlap(length: int, frame: int, anchor: str) -> tuple[slice, slice]:
    """Matching slices of the image (first) and the frame (second) along one axis."""
    spare = abs(frame - length)
    begin = {"start": 0, "middle": spare // 2, "end": spare}[anchor]
    part = slice(begin, begin + min(length, frame))
    whole = slice(0, min(length, frame))
    return (part, whole) if length > frame else (whole, part)


def _normalise(image: Image, pixels: NDArray[np.float32], name: str, dtype: np.dtype[Any]) -> NDArray[np.float32]:
    """Normalise in place."""
    if name == "standardise":
        if pixels.min() == pixels.max():
            raise ImageError(f"{image.path}: the part inside the frame is constant", remedy="use a larger `size`")
        pixels -= np.float32(pixels.mean(dtype=np.float64))
        # Row by row: numpy.std in float64 would allocate two full-size temporaries.
        squares = sum(float(np.vdot(row, row)) for row in pixels.reshape(-1, pixels.shape[-1]))
        deviation = np.float32(np.sqrt(squares / pixels.size))
        if not (np.isfinite(deviation) and deviation > np.finfo(np.float32).tiny):
            raise ImageError(f"{image.path}: pixels are too large or too small to be standardised; rescale the image")
        pixels /= deviation
    if name == "unit":
        if dtype.kind not in "ui":
            raise ImageError(
                f"{image.path}: {dtype} pixels have no full scale", remedy="use `normalisation` standardise or none"
            )
        pixels /= np.float32(np.iinfo(dtype).max)
    return pixels
