"""Input images: listing, sampling, decoding and preprocessing. Independent of models and gradients."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from erf.errors import ImageError, InputError
from erf.images.fit import FITS, INTERPOLATIONS
from erf.images.frame import Framing
from erf.images.image import Decoded, Failure, Image, Sample
from erf.images.laterality import laterality_from_name, laterality_from_tissue
from erf.images.manifest import PHANTOM, list_images, list_phantoms
from erf.images.normalisation import NORMALISATIONS
from erf.images.phantom import Phantom, draw_phantom
from erf.images.progress import Progress, ProgressReport
from erf.images.readers import read_image
from erf.images.selection import draw
from erf.images.size import Size, as_size
from erf.images.stream import ImageSet
from erf.images.thumbnail import overview

__all__ = [
    "FITS",
    "INTERPOLATIONS",
    "NORMALISATIONS",
    "PHANTOM",
    "Decoded",
    "Failure",
    "Framing",
    "Image",
    "ImageSet",
    "Phantom",
    "Progress",
    "ProgressReport",
    "Sample",
    "choose_images",
    "draw",
    "draw_phantom",
    "from_arrays",
    "laterality_from_name",
    "laterality_from_tissue",
    "list_images",
    "list_phantoms",
    "load_images",
    "overview",
    "read_image",
]


def load_images(
    source: str | Path = PHANTOM,
    *,
    n: int = 100,
    seed: int = 0,
    size: Size = (3328, 2560),
    channels: int = 1,
    inputs: Sequence[str] = (),
    normalisation: str = "standardise",
    fit: str = "pad",
    interpolation: str = "bilinear",
    mirror: bool = False,
    lesions: int = 0,
    allow_outside: bool = False,
    progress: Progress | None = None,
) -> ImageSet:
    """Choose n images from a folder, a manifest CSV or the phantom generator.

    Images are decoded only when they are needed. The random choice is balanced over lateralities and depends on `seed`
    alone.

    Args:
        source: Folder, manifest CSV, or `PHANTOM` for generated images.
        n: Number of images; of cases, for a network with several inputs.
        seed: Seed of the random choice and of the phantoms.
        size: (height, width) of the frame in pixels, or the side of a square, to which every image is brought.
        channels: Channels of each input of the network.
        inputs: Names of the inputs of a network that takes several; a manifest then has a column `path:NAME` for each,
            and a phantom is generated for each.
        normalisation: Key of `NORMALISATIONS`, or MEAN/STD.
        fit: Key of `FITS`, by default `pad`, which resamples nothing; or `crop:SHARE`.
        interpolation: Key of `INTERPOLATIONS`.
        mirror: Whether to mirror every image left to right.
        lesions: Number of findings in each phantom.
        allow_outside: Whether a manifest may name files outside its own folder.
        progress: Called while images are decoded to find the side of the breast.

    Returns:
        The chosen images, not yet decoded.

    Raises:
        InputError: The source or an option cannot be used.

    Example:
        >>> import erf
        >>> images = erf.load_images("phantom", n=4, size=(64, 48))
        >>> [image.laterality for image in images.images]
        ['left', 'right', 'left', 'right']
    """
    framing = Framing(as_size(size), channels, normalisation, fit, interpolation, mirror)
    return choose_images(
        source, framing, n=n, seed=seed, inputs=inputs, lesions=lesions, allow_outside=allow_outside, progress=progress
    )


def choose_images(
    source: str | Path,
    framing: Framing,
    *,
    n: int = 100,
    seed: int = 0,
    inputs: Sequence[str] = (),
    lesions: int = 0,
    allow_outside: bool = False,
    progress: Progress | None = None,
) -> ImageSet:
    """Choose n images for a preprocessing that is known; arguments and errors are those of `load_images`."""
    if n < 1:
        raise InputError(f"n={n} images asked for; expected at least 1")
    images = (
        list_phantoms(n, seed, framing.size, lesions, inputs)
        if source == PHANTOM
        else draw(list_images(source, allow_outside, inputs), n, seed, progress)
    )
    return ImageSet.of(images, framing)


def from_arrays(
    arrays: Sequence[NDArray[np.generic]],
    laterality: Sequence[str] | None = None,
    *,
    normalisation: str = "none",
    mirror: bool = False,
) -> ImageSet:
    """Make an image set from arrays in memory.

    Args:
        arrays: Arrays (C, H, W) of a single shape, integer or floating point.
        laterality: 'left', 'right' or '' for each array; None if unknown.
        normalisation: Key of `NORMALISATIONS`, or MEAN/STD.
        mirror: Whether to mirror every image left to right.

    Returns:
        One image per array, in the given order.

    Raises:
        InputError: The arrays have no common shape (C, H, W), or the number of lateralities differs.

    Example:
        >>> import numpy as np, erf
        >>> images = erf.from_arrays([np.zeros((3, 32, 32), np.uint8)] * 2, laterality=["left", "right"])
        >>> images.shape
        (3, 32, 32)
    """
    if not len(arrays) or any(np.shape(array) != np.shape(arrays[0]) or np.ndim(array) != 3 for array in arrays):
        found = sorted({np.shape(array) for array in arrays})
        raise InputError(f"arrays have shapes {found or 'none'}; expected one or more of a single shape (C, H, W)")
    if any(np.asarray(array).dtype.kind not in "biuf" for array in arrays):
        kinds = sorted({str(np.asarray(array).dtype) for array in arrays})
        raise InputError(f"arrays of type {', '.join(kinds)}; expected integers or floating-point numbers")
    sides = laterality if laterality is not None else [""] * len(arrays)
    if len(sides) != len(arrays):
        raise InputError(f"found {len(sides)} lateralities for {len(arrays)} arrays; expected one for each")
    images = [
        _from_array(index, np.asarray(array), side)
        for index, (array, side) in enumerate(zip(arrays, sides, strict=True))
    ]
    channels, height, width = arrays[0].shape
    return ImageSet.of(images, Framing((height, width), channels, normalisation, mirror=mirror))


def _from_array(index: int, array: NDArray[np.generic], laterality: str) -> Image:
    def decode() -> Decoded:
        if not np.isfinite(array).all():
            raise ImageError(f"array {index}: found NaN or infinite pixels, expected finite values only")
        if array.dtype.kind == "f" and np.abs(array).max() > np.finfo(np.float32).max:
            raise ImageError(f"array {index}: found pixels beyond the range of float32")
        return Decoded(array, hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest())

    return Image(f"array:{index}", f"array:{index}", decode, laterality)
