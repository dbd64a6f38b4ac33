"""What an image looks like at a glance: a thumbnail, and where its tissue is."""

import numpy as np
from numpy.typing import NDArray

from erf.images.laterality import tissue_threshold


def overview(pixels: NDArray[np.float32], block: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Of an image (C, H, W), over square blocks: means as a thumbnail (h, w), and the share of tissue (h, w), 0 to 1.

    A thumbnail runs from 0 at the background to 255 at the bright end. Tissue is what `laterality_from_tissue` takes
    for it: pixels of the first channel brighter than the background by a twentieth of the image's range.
    """
    threshold, background, bright = tissue_threshold(pixels)
    plane = pixels[0] if len(pixels) == 1 else pixels.mean(0)
    shade = (_block_means(plane, block) - background) * (255 / max(bright - background, 1e-12))
    return np.clip(np.rint(shade), 0, 255).astype(np.uint8), _block_means(pixels[0] > threshold, block)


def _block_means(plane: NDArray[np.generic], block: int) -> NDArray[np.float32]:
    starts = [np.arange(0, length, block) for length in plane.shape]
    lengths = [np.diff([*start, length]) for start, length in zip(starts, plane.shape, strict=True)]
    sums = np.add.reduceat(np.add.reduceat(plane, starts[0], axis=0, dtype=np.float64), starts[1], axis=1)
    return np.asarray(sums / np.outer(*lengths), np.float32)
