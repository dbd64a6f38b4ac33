"""Thumbnail and tissue map of an image."""

import numpy as np
from numpy.typing import NDArray

from erf.images.laterality import tissue_threshold


def overview(pixels: NDArray[np.float32], block: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Downsample an image to a thumbnail and a tissue map, over square blocks.

    Tissue is defined as in `laterality_from_tissue`: pixels of the first channel that exceed the background by a
    twentieth of the image's range.

    Args:
        pixels: Image (C, H, W).
        block: Side of the blocks in pixels.

    Returns:
        Thumbnail (h, w) of block means, from 0 at the background to 255 at the bright end, and the fraction of tissue
        (h, w) in each block, from 0 to 1.
    """
    threshold, background, bright = tissue_threshold(pixels)
    plane = pixels[0] if len(pixels) == 1 else pixels.mean(0)
    shade = (block_means(plane, block) - background) * (255 / max(bright - background, 1e-12))
    return np.clip(np.rint(shade), 0, 255).astype(np.uint8), block_means(pixels[0] > threshold, block)


def block_means(plane: NDArray[np.generic], block: int) -> NDArray[np.float32]:
    """Means (h, w) of a plane over square blocks; the last ones may be smaller."""
    starts = [np.arange(0, length, block) for length in plane.shape]
    lengths = [np.diff([*start, length]) for start, length in zip(starts, plane.shape, strict=True)]
    sums = np.add.reduceat(_row_sums(plane, block), starts[1], axis=1, dtype=np.float64)
    return np.asarray(sums / np.outer(*lengths), np.float32)


def _row_sums(plane: NDArray[np.generic], block: int) -> NDArray[np.generic]:
    """Sums (h, W) over blocks of rows, by reshaping: `reduceat` along rows is twenty times slower."""
    dtype = np.uint32 if plane.dtype == bool else np.float32
    whole = len(plane) // block * block
    sums = plane[:whole].reshape(-1, block, plane.shape[1]).sum(1, dtype=dtype)
    return np.concatenate([sums, plane[whole:].sum(0, dtype=dtype)[None]]) if whole < len(plane) else sums
