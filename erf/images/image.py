"""Image records: a row of the manifest, its decoded pixels, and the preprocessed model input."""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath

import numpy as np
from numpy.typing import NDArray

from erf.errors import ImageError

MAX_PIXELS = 2**28
"""Largest number of values in an image; above any detector, and checked before memory is allocated."""

KNOWN_COLUMNS = ("laterality", "view", "patient_id")
"""Manifest columns that every image has, possibly empty."""


@dataclass(frozen=True)
class Decoded:
    """Pixels of one image as stored, with remarks from its file."""

    pixels: NDArray[np.generic]
    """(C, H, W), integer or floating point, in the file's own scale."""
    sha256: str
    """SHA-256 of the file, or of the pixels where there is no file."""
    notes: tuple[str, ...] = ()
    """Remarks for the reader of the results, such as unprocessed detector values."""


@dataclass(frozen=True)
class Image:
    """One image of a run, not yet decoded."""

    id: str
    path: str
    decode: Callable[[], Decoded]
    laterality: str = ""
    """'left', 'right', or '' if unknown."""
    view: str = ""
    patient_id: str = ""
    pixel_spacing: float = float("nan")
    """Distance between neighbouring pixels at the detector, in millimetres; NaN if unknown."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """All other columns of the manifest."""
    number: int = 0
    """Index in the random order of the run."""
    file: Path | None = None
    """Source file; None for generated images and images in memory."""
    parts: tuple["Image", ...] = ()
    """Images of a case, one per input of a network that takes several."""
    folder: Path | None = None
    """Folder of the manifest, to which paths in its columns are relative; None without a manifest."""
    allow_outside: bool = False
    """Whether these paths may lead out of the folder."""

    def value(self, column: str) -> str:
        """Value of a manifest column, '' if the image has none."""
        if column in KNOWN_COLUMNS:
            return str(getattr(self, column))
        return self.columns.get(column, "")

    def file_of(self, column: str) -> Path:
        """Return the file that a manifest column names; `ImageError` if there is none, or it is outside the folder."""
        name = self.value(column)
        if not name or self.folder is None:
            raise ImageError(f"{self.path}: column '{column}' is empty; expected the path of a file")
        if not self.allow_outside and leaves_folder(name):
            raise ImageError(
                f"{self.path}: '{name}' in column '{column}' lies outside the manifest's folder",
                remedy="move it there, or ask for `allow_outside`",
            )
        return self.folder / name


@dataclass(frozen=True)
class Placement:
    """Transformation from pixel coordinates of a file to those of the frame."""

    scale: tuple[float, float] = (1.0, 1.0)
    """(y, x): pixels of the frame per pixel of the file."""
    top: int = 0
    """Frame row of the file's first row; negative if the image is cropped."""
    left: int = 0
    mirrored_width: int = 0
    """Width of the frame if it is mirrored left to right, else 0."""

    def to_frame(self, y: float, x: float) -> tuple[float, float]:
        """Convert a point (y, x) from pixels of the file to pixels of the frame."""
        y, x = ((place + 0.5) * scale - 0.5 for place, scale in zip((y, x), self.scale, strict=True))
        y, x = y + self.top, x + self.left
        return y, self.mirrored_width - 1 - x if self.mirrored_width else x


@dataclass(frozen=True)
class Sample:
    """Preprocessed image: decoded, framed and normalised for the model."""

    image: Image
    pixels: NDArray[np.float32]
    """(C, H, W), normalised."""
    sha256: str
    notes: tuple[str, ...] = ()
    placement: Placement = Placement()
    file_shape: tuple[int, int] = (0, 0)
    """(height, width) of the file, in pixels."""
    parts: tuple["Sample", ...] = ()
    """Samples of the single images of a case; `pixels` concatenates their channels in this order."""


@dataclass(frozen=True)
class Failure:
    """An image that could not be decoded or preprocessed, and the reason."""

    image: Image
    reason: str


def leaves_folder(name: str) -> bool:
    """Whether a path leads out of the folder to which it is relative; links are not resolved but trusted."""
    return (
        os.path.isabs(name) or bool(PureWindowsPath(name).drive) or os.path.normpath(name).split(os.sep)[0] == os.pardir
    )


def check_size(path: Path, *shape: int) -> None:
    """Raise `ImageError` if the shape stated by a file exceeds `MAX_PIXELS`."""
    if math.prod(shape) > MAX_PIXELS:
        found = "x".join(map(str, shape))
        raise ImageError(f"{path}: the header claims {found} pixels, expected at most {MAX_PIXELS / 1e6:.0f} million")
