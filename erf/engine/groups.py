"""Image groups: images that belong to the same subsets, in the order in which a run processes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np

from erf.engine.settings import Settings
from erf.images import Image
from erf.measures import interleaved

_FIRST_ROUND = 12
"""Number of images before the first test whether there are enough."""


@dataclass(frozen=True)
class ImageGroup:
    """The images that belong to the same subsets."""

    subsets: tuple[str, ...]
    images: tuple[Image, ...]


Rounds = tuple[tuple[ImageGroup, ...], ...]
"""Image groups by round; after each round a run may have enough images."""


def group_images(images: Sequence[Image], settings: Settings) -> Rounds:
    """Group images by their subsets, round by round.

    There is more than one round only if the run may stop before its last image (`settings.until`).
    """

    def subsets(image: Image) -> tuple[str, ...]:
        values = [f"{column}={value}" for column in settings.subset_by if (value := image.value(column))]
        return ("all", *filter(None, [image.laterality]), *values)

    return tuple(
        tuple(ImageGroup(names, tuple(members)) for names, members in groupby(sorted(part, key=subsets), key=subsets))
        for part in (split_into_rounds(images) if settings.until else [images])
    )


def split_into_rounds(images: Sequence[Image]) -> list[list[Image]]:
    """Split images into rounds that grow by half, sides alternating, so that every prefix is balanced."""
    order = interleaved(np.array([image.laterality for image in images]))
    ends = [_FIRST_ROUND]
    while ends[-1] < len(images):
        ends.append(ends[-1] + max(1, ends[-1] // 2))
    return [[images[row] for row in order[start:end]] for start, end in pairwise([0, *ends])]
