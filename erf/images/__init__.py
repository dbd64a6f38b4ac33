"""Images for a run: listed, drawn, decoded, framed. Knows nothing of models and gradients."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from erf.errors import ImageError, InputError
from erf.images.draw import Progress, draw
from erf.images.frame import NORMALISATIONS, Framing
from erf.images.image import Decoded, Failure, Image, Sample
from erf.images.laterality import laterality_from_name, laterality_from_tissue
from erf.images.manifest import PHANTOM, list_images, list_phantoms
from erf.images.overview import overview
from erf.images.phantom import Phantom, draw_phantom
from erf.images.readers import read_image
from erf.images.stream import ImageSet

__all__ = [
    "NORMALISATIONS",
    "PHANTOM",
    "Decoded",
    "Failure",
    "Framing",
    "Image",
    "ImageSet",
    "Phantom",
    "Progress",
    "Sample",
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
    size: tuple[int, int] = (3328, 2560),
    channels: int = 1,
    inputs: Sequence[str] = (),
    normalisation: str = "standardise",
    resample: bool = False,
    mirror: bool = False,
    lesions: int = 0,
    allow_outside: bool = False,
    progress: Progress | None = None,
) -> ImageSet:
    """Choose n images from a folder, a manifest CSV or the phantom generator, for a frame of (height, width) `size`.

    Nothing is decoded before it is needed. The draw is balanced over lateralities and depends on `seed` alone;
    `inputs` are those of a network that takes several: a manifest has a column `path:NAME` for each, a phantom is drawn
    for each, and n counts cases. `mirror` turns every image left to right; `lesions` is the number of findings in each
    phantom; paths of a manifest stay below its folder unless `allow_outside`; `progress` is called where images have to
    be decoded to see on which side the breast is. Raises `InputError` for a source that cannot be used.
    """
    if n < 1:
        raise InputError(f"n={n} images asked for; expected at least 1")
    framing = Framing(size, channels, normalisation, resample, mirror)
    images = (
        list_phantoms(n, seed, size, lesions, inputs)
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
    """Make images of arrays (C, H, W) of one shape; `laterality` has 'left', 'right' or '' for each of them."""
    if not len(arrays) or any(np.shape(array) != np.shape(arrays[0]) or np.ndim(array) != 3 for array in arrays):
        found = sorted({np.shape(array) for array in arrays})
        raise InputError(f"arrays have shapes {found or 'none'}; expected one or more of a single shape (C, H, W)")
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
        return Decoded(array, hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest())

    return Image(f"array:{index}", f"array:{index}", decode, laterality)
