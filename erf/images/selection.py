"""Seeded random sampling of images, balanced over lateralities."""

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from erf.errors import ErfError
from erf.images.image import Image
from erf.images.laterality import laterality_from_tissue
from erf.images.progress import Progress

_CANDIDATES = 2
"""Images of unknown laterality to decode per image requested."""


def draw(images: Sequence[Image], n: int, seed: int = 0, progress: Progress | None = None) -> list[Image]:
    """Sample n images at random, balanced over left, right and unknown laterality as far as possible.

    Images whose laterality is not given by manifest, tags or file names are decoded, to find it from the tissue.

    Args:
        images: Images to choose from.
        n: Number of images.
        seed: Seed of the random order.
        progress: Called while images are decoded.

    Returns:
        n images, or all of them if there are fewer.
    """
    rng = np.random.default_rng(seed)
    shuffled = [images[index] for index in rng.permutation(len(images))]
    known = [image for image in shuffled if image.laterality]
    unknown = [image for image in shuffled if not image.laterality][: _CANDIDATES * n]
    with ThreadPoolExecutor() as pool:
        groups: dict[str, list[Image]] = defaultdict(list)
        for image in known:
            groups[image.laterality].append(image)
        for done, image in enumerate(pool.map(_look, unknown), start=1):
            groups[image.laterality].append(image)
            if progress:
                progress("sides", done, len(unknown))
    shares = _share({side: len(group) for side, group in groups.items()}, n)
    return [image for side in sorted(groups) for image in groups[side][: shares[side]]]


def _look(image: Image) -> Image:
    """Set the laterality of an image from its tissue, if it can be decoded."""
    try:
        return replace(image, laterality=laterality_from_tissue(image.decode().pixels))
    except ErfError:
        return image  # decoding fails again in the run, which reports it


def _share(available: dict[str, int], n: int) -> dict[str, int]:
    """Divide n over groups as evenly as their sizes allow."""
    shares = dict.fromkeys(sorted(available), 0)
    left = min(n, sum(available.values()))
    while left:
        open_groups = [side for side in shares if shares[side] < available[side]]
        room = min(available[side] - shares[side] for side in open_groups)
        step = max(1, min(left // len(open_groups), room))
        for side in open_groups[:left]:
            shares[side] += step
            left -= step
    return shares
