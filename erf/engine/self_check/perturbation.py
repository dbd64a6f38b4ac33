"""Variations of an image and perturbations of a network, with which ways of computing are compared."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from erf.engine.batches import BatchGradients, LocatedSample


def companions(item: LocatedSample, count: int) -> list[LocatedSample]:
    """Make a batch of images that differ in contrast, brightness and detail, with the given one in the middle."""
    batch = [
        varied(item, 0.4 + 1.7 * number / count, 0.3 * (-1) ** number, 0.1 + 0.2 * number / count, number + 1)
        for number in range(count)
    ]
    batch[count // 2] = item
    return batch


def varied(
    item: LocatedSample, contrast: float = 1.0, offset: float = 0.0, noise: float = 0.0, number: int = 0
) -> LocatedSample:
    """Change the contrast of an image, and add an offset and noise in units of its standard deviation."""
    sample = item.sample
    spread = float(sample.pixels.std()) or 1.0
    random = np.random.default_rng(number).standard_normal(sample.pixels.shape, dtype=np.float32)
    pixels = contrast * sample.pixels + np.float32(spread) * (np.float32(offset) + np.float32(noise) * random)
    image = replace(sample.image, number=sample.image.number + number)
    return replace(item, sample=replace(sample, image=image, pixels=pixels.astype(np.float32)))


def nudged(item: LocatedSample, by: float, seed: int) -> LocatedSample:
    """Perturb an image at random, relative to each pixel and to the RMS value, in double precision."""
    pixels = item.sample.pixels.astype(np.float64)
    typical = float(np.sqrt((pixels**2).mean())) or 1.0
    random = np.random.default_rng(seed).standard_normal(pixels.shape, dtype=np.float32)
    return with_pixels(item, pixels + by * random * (np.abs(pixels) + typical))


def with_pixels(item: LocatedSample, pixels: Any) -> LocatedSample:
    """Replace the pixels of a sample, also by ones in double precision."""
    return replace(item, sample=replace(item.sample, pixels=pixels))


def nudge_parameters(gradients: BatchGradients, by: float, seed: int) -> None:
    """Perturb parameters at random, relative to each; call it within `Way.applied`, which restores them."""
    generator = torch.Generator(gradients.device).manual_seed(seed)
    for parameter in gradients.model.parameters():
        data = parameter.data
        if data.is_floating_point():
            random = torch.randn(data.shape, generator=generator, device=data.device).to(data.dtype)
            parameter.data = data * (1 + by * random)
