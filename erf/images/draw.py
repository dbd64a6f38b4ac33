"""Which images a run uses: a seeded random draw, balanced over lateralities."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from erf.errors import ErfError
from erf.images.image import Image
from erf.images.laterality import laterality_from_tissue

_CANDIDATES = 2
"""Images of unknown side that are decoded to find it, per image that is wanted."""


Progress = Callable[[str, int, int], None]
"""Called with the name of a stage, how many of its items are done, and how many there are."""


def draw(images: Sequence[Image], n: int, seed: int = 0, progress: Progress | None = None) -> list[Image]:
    """Draw n images at random, as evenly over left, right and unknown as there are enough; all if there are fewer.

    Images whose side neither the manifest nor tags nor names tell are decoded, to see where the tissue lies.
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
    """The image with its laterality, where its tissue shows it."""
    try:
        return replace(image, laterality=laterality_from_tissue(image.decode().pixels))
    except ErfError:
        return image  # it fails again, and is reported, when its turn comes


def _share(available: dict[str, int], n: int) -> dict[str, int]:
    """Hand out n places one by one to the groups in turn, as long as a group has images left."""
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
