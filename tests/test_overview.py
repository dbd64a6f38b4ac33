"""Thumbnail and tissue of an image, against block means taken one by one."""

import numpy as np
import pytest

from erf.images.laterality import tissue_threshold
from erf.images.thumbnail import overview


@pytest.mark.parametrize("shape", [(1, 40, 32), (3, 41, 29), (1, 7, 5), (1, 8, 64)])
@pytest.mark.parametrize("block", [1, 4, 8, 26])
def test_overview_holds_the_means_of_blocks(shape: tuple[int, int, int], block: int) -> None:
    pixels = np.random.default_rng(0).gamma(0.5, size=shape).astype(np.float32)
    threshold, background, bright = tissue_threshold(pixels)
    shade = (pixels.astype(np.float64).mean(0) - background) * 255 / (bright - background)
    thumbnail, tissue = overview(pixels, block)
    for y, x in np.ndindex(thumbnail.shape):
        here = np.s_[y * block : (y + 1) * block, x * block : (x + 1) * block]
        assert abs(int(thumbnail[y, x]) - np.clip(shade[here].mean(), 0, 255)) < 0.501
        assert tissue[y, x] == pytest.approx((pixels[0][here] > threshold).mean())
    assert thumbnail.shape == tissue.shape == tuple(-(-length // block) for length in shape[1:])
