"""Images of the explorer: as the network gets them, and as the page shows them."""

import math
from dataclasses import dataclass, field, replace
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from erf.errors import ImageError
from erf.images import Failure, Image, ImageSet, Sample
from erf.images.thumbnail import block_means

_KEPT = 3
"""Images that stay decoded."""

_THUMBNAIL = 96
"""Width of a thumbnail in pixels, at least."""


@dataclass
class Pictures:
    """The images of a set, by number; threads may use it at the same time."""

    images: ImageSet
    _samples: dict[int, Sample] = field(default_factory=dict)
    _shown: dict[tuple[int, int], NDArray[np.float32]] = field(default_factory=dict)
    _decoding: Lock = field(default_factory=Lock)
    _showing: Lock = field(default_factory=Lock)

    def image(self, number: int, part: int | None = None) -> Image:
        """Return an image, or the image of one input of a case; raises `ImageError` if there is none."""
        if not 0 <= number < len(self.images):
            raise ImageError(f"image {number}; expected a number below {len(self.images)}")
        image = self.images.images[number]
        return image if part is None or not image.parts else image.parts[part]

    def sample(self, number: int) -> Sample:
        """Return an image, preprocessed for the network; raises `ImageError` if it cannot be used."""
        with self._decoding:
            if number not in self._samples:
                found = self.images.sample(self.image(number))
                if isinstance(found, Failure):
                    raise ImageError(found.reason)
                self._samples[number] = found
                for old in list(self._samples)[:-_KEPT]:
                    del self._samples[old]
            return self._samples[number]

    def shown(self, number: int, part: int = 0) -> NDArray[np.float32]:
        """Return the pixels (C, H, W) of an image in the frame, on the file's scale; may raise `ImageError`."""
        image = self.image(number, part)
        with self._showing:
            if (number, part) not in self._shown:
                framing = replace(self.images.framing, normalisation="none")
                self._shown[number, part] = framing.apply(image, image.decode()).pixels
                for old in list(self._shown)[:-_KEPT]:
                    del self._shown[old]
            return self._shown[number, part]

    def thumbnail(self, number: int) -> NDArray[np.float32]:
        """Return the pixels (C, h, w) of an image as decoded, at a reduced size; nothing of it is kept."""
        pixels = self.image(number, 0).decode().pixels
        block = max(1, pixels.shape[2] // _THUMBNAIL)
        return np.stack([block_means(plane, block) for plane in pixels])

    def spacing(self, number: int, part: int = 0) -> float:
        """Return the millimetres of a pixel of the frame; NaN if they are not known."""
        return self.image(number, part).pixel_spacing if self.images.framing.fit == "pad" else math.nan
