"""Images as the run knows them: a row of the manifest, its decoded pixels, a sample ready for a model."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from erf.errors import ImageError

MAX_PIXELS = 2**28
"""Values that an image may hold; more than any detector gives, and refused before anything is allocated."""

KNOWN_COLUMNS = ("laterality", "view", "patient_id")
"""Columns of a manifest that every image has, if only empty."""


@dataclass(frozen=True)
class Decoded:
    """The pixels of one image, as stored, with what the file itself says about them."""

    pixels: NDArray[np.generic]
    """(C, H, W), integer or floating point, in the file's own scale."""
    sha256: str
    """Of the file, or of the pixels where there is no file."""
    notes: tuple[str, ...] = ()
    """What a reader of the results should know, such as unprocessed detector values."""


@dataclass(frozen=True)
class Image:
    """One image of a run, not yet decoded."""

    id: str
    path: str
    decode: Callable[[], Decoded]
    laterality: str = ""
    """'left', 'right' or '' where it is not known."""
    view: str = ""
    patient_id: str = ""
    pixel_spacing: float = float("nan")
    """Millimetres between neighbouring pixels, at the detector."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """All further columns of the manifest."""
    number: int = 0
    """Place in the draw."""
    file: Path | None = None
    """Where it is read from; None for images that are made or in memory."""
    parts: tuple["Image", ...] = ()
    """Of a case, the images for each input of a network that takes several."""

    def value(self, column: str) -> str:
        """The value of a manifest column, '' where the image has none."""
        if column in KNOWN_COLUMNS:
            return str(getattr(self, column))
        return self.columns.get(column, "")


@dataclass(frozen=True)
class Placement:
    """Where the pixels of a file lie in the frame."""

    scale: float = 1.0
    top: int = 0
    """Row of the frame on which the file's first row falls; negative where it is cropped."""
    left: int = 0
    mirrored_width: int = 0
    """Width of the frame where it is turned left to right, else 0."""

    def to_frame(self, y: float, x: float) -> tuple[float, float]:
        """A point (y, x) of the file in pixels of the frame."""
        y, x = ((place + 0.5) * self.scale - 0.5 for place in (y, x))
        y, x = y + self.top, x + self.left
        return y, self.mirrored_width - 1 - x if self.mirrored_width else x


@dataclass(frozen=True)
class Sample:
    """A decoded image in the model's frame."""

    image: Image
    pixels: NDArray[np.float32]
    """(C, H, W), normalised."""
    sha256: str
    notes: tuple[str, ...] = ()
    placement: Placement = Placement()
    parts: tuple["Sample", ...] = ()
    """Of a case of several images, what became of each; their channels follow each other in `pixels`."""


@dataclass(frozen=True)
class Failure:
    """An image that could not be made a sample, and why."""

    image: Image
    reason: str


def check_size(path: Path, *shape: int) -> None:
    """Raise `ImageError` for what a file claims to hold where it is out of all proportion."""
    if math.prod(shape) > MAX_PIXELS:
        found = "x".join(map(str, shape))
        raise ImageError(f"{path}: the header claims {found} pixels, expected at most {MAX_PIXELS / 1e6:.0f} million")
