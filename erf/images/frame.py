"""Preprocessing of decoded pixels: the model's frame, channels, intensity scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from erf.errors import ImageError, InputError
from erf.images.fit import INTERPOLATIONS, Fit, middle, resize
from erf.images.image import Decoded, Image, Placement, Sample
from erf.images.laterality import laterality_from_tissue
from erf.images.normalisation import Scaling, normalise


@dataclass(frozen=True)
class Framing:
    """Preprocessing that brings images to a single shape.

    An image is mirrored only if `mirror` is set. Where it is padded, with its own darkest value, or cropped without
    being scaled, the edge of the chest wall is kept in place; vertically an MLO view is aligned at its top, any other
    at its middle.
    """

    size: tuple[int, int]
    """(height, width) of the frame, in pixels."""
    channels: int = 1
    normalisation: str = "standardise"
    fit: str = "pad"
    """Key of `FITS`; of `crop` and `squash` also with the share of which the centre is taken, as `crop:0.875`."""
    interpolation: str = "bilinear"
    """Key of `INTERPOLATIONS`, used where the image is scaled."""
    mirror: bool = False
    """Whether to mirror the framed image left to right, as a test of the network."""

    def __post_init__(self) -> None:
        Scaling.parse(self.normalisation, self.channels)
        Fit.parse(self.fit)
        if self.interpolation not in INTERPOLATIONS:
            known = ", ".join(INTERPOLATIONS)
            raise InputError(f"interpolation '{self.interpolation}' not known; expected one of {known}")
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
        _check_channels(image, decoded.pixels, self.channels)
        seen = laterality_from_tissue(decoded.pixels)
        framed, placement = self._framed(decoded.pixels, _anchor(image.view), seen or image.laterality)
        pixels = framed.astype(np.float32)  # always a copy, so that normalisation can work in place
        if self.mirror:
            pixels = np.ascontiguousarray(pixels[..., ::-1])
        if len(pixels) < self.channels:
            pixels = np.repeat(pixels, self.channels, axis=0)
        notes = decoded.notes
        if image.laterality and seen and seen != image.laterality:
            notes += (f"labelled {image.laterality}, but the tissue lies at the {seen} edge: mirrored or mislabelled",)
        notes += self._notes_of_padding(decoded.pixels.shape[1:])
        normalise(image.path, pixels, self.normalisation, decoded.pixels.dtype)
        return Sample(
            image, pixels, decoded.sha256, notes, placement, (decoded.pixels.shape[1], decoded.pixels.shape[2])
        )

    def _notes_of_padding(self, size: Sequence[int]) -> tuple[str, ...]:
        """Return a remark on an image of (height, width) that fills less than half of each side of the frame."""
        if Fit.parse(self.fit).name != "pad" or any(2 * own >= side for own, side in zip(size, self.size, strict=True)):
            return ()
        return (
            f"less than half as high and as wide as the input of {self.size[0]}x{self.size[1]} pixels, so that most of "
            "it is padding; use a smaller `size`, or `fit` letterbox",
        )

    def _framed(self, pixels: NDArray[Any], vertical: str, side: str) -> tuple[NDArray[Any], Placement]:
        fit, before = Fit.parse(self.fit), (pixels.shape[1], pixels.shape[2])
        target = fit.target(before, self.size)
        scaled = pixels if target == before else resize(pixels, target, self.interpolation)
        if fit.name in ("crop", "squash"):
            framed, top, left = middle(scaled, self.size)
        else:
            framed, top, left = _place(scaled, self.size, vertical, side)
        scale = (target[0] / before[0], target[1] / before[1])
        return framed, Placement(scale, top, left, self.size[1] if self.mirror else 0)


def _check_channels(image: Image, pixels: NDArray[Any], channels: int) -> None:
    if len(pixels) not in (channels, 1):
        raise ImageError(
            f"{image.path}: found {len(pixels)} channels, expected {channels}; convert the image to greyscale"
        )


def _anchor(view: str) -> str:
    """Vertical alignment in the frame: the pectoral muscle of an MLO view runs into the top edge."""
    return "start" if view.upper() == "MLO" else "middle"


def _place(pixels: NDArray[Any], size: tuple[int, int], vertical: str, side: str) -> tuple[NDArray[Any], int, int]:
    """Pad or crop an image to the frame; also return the frame row and column of its first row and column."""
    if pixels.shape[1:] == size:
        return pixels, 0, 0
    horizontal = {"left": "start", "right": "end", "": "middle"}[side]
    rows = _overlap(pixels.shape[1], size[0], vertical)
    columns = _overlap(pixels.shape[2], size[1], horizontal)
    framed = np.full((len(pixels), *size), pixels.min(), dtype=pixels.dtype)
    framed[:, rows[1], columns[1]] = pixels[:, rows[0], columns[0]]
    return framed, rows[1].start - rows[0].start, columns[1].start - columns[0].start


def _overlap(length: int, frame: int, anchor: str) -> tuple[slice, slice]:
    """Matching slices of the image (first) and the frame (second) along one axis."""
    spare = abs(frame - length)
    begin = {"start": 0, "middle": spare // 2, "end": spare}[anchor]
    part = slice(begin, begin + min(length, frame))
    whole = slice(0, min(length, frame))
    return (part, whole) if length > frame else (whole, part)
