"""Differences between the gradients of one image, computed in two ways."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from erf.engine.batches import BatchGradients, ImageGradients
from erf.engine.units import MeasuredUnit

FrameGradients = dict[MeasuredUnit, list[Tensor]]
"""Gradients (C, H, W) on the whole image of each draw, source and input, by measured unit."""


@dataclass(frozen=True)
class Difference:
    """Difference between gradients, relative to the plain ones."""

    largest: float = 0.0
    """Largest difference, relative to the largest value."""
    share: float = 0.0
    """Sum of differences, relative to the sum of absolute values."""

    def is_within(self, tolerance: float) -> bool:
        return self.largest <= tolerance and self.share <= tolerance

    @property
    def largest_text(self) -> str:
        return f"{self.largest:.1e} of the largest value"

    @property
    def share_text(self) -> str:
        return f"{self.share:.1e} of the sum"


Differences = Mapping[MeasuredUnit, Difference]


def on_frame(gradients: BatchGradients, image: ImageGradients) -> FrameGradients:
    """Pad the gradients of one image to the whole image, and split them by input of the network."""
    height, width = gradients.size
    inputs = len(gradients.settings.arguments.parts)
    by_unit: FrameGradients = {}
    for unit, maps in image.maps.items():
        top, left, bottom, right = gradients.box(unit)
        padding = (left, width - right, top, height - bottom)
        whole = [functional.pad(one, padding) if any(padding) else one for one in maps]
        by_unit[unit] = [part for one in whole for part in one.chunk(inputs)]
    return by_unit


def differences(computed: FrameGradients, expected: FrameGradients) -> dict[MeasuredUnit, Difference]:
    """Return the largest difference over draws, sources and inputs, by measured unit."""
    by_unit = {}
    for unit, plain in expected.items():
        pairs = [_difference(one, other) for one, other in zip(computed[unit], plain, strict=True)]
        by_unit[unit] = Difference(max(one.largest for one in pairs), max(one.share for one in pairs))
    return by_unit


def are_within(tolerance: float, computed: FrameGradients, expected: FrameGradients) -> bool:
    """Whether all gradients agree up to a tolerance."""
    return all(each.is_within(tolerance) for each in differences(computed, expected).values())


def are_finite(gradients: FrameGradients) -> bool:
    return all(bool(torch.isfinite(one).all()) for each in gradients.values() for one in each)


def together(*several: FrameGradients) -> Iterator[tuple[Tensor, ...]]:
    """Yield the corresponding tensors of several gradients of the same image."""
    for unit in several[0]:
        yield from zip(*(each[unit] for each in several), strict=True)


def ratio(part: Tensor, whole: Tensor) -> float:
    """Return part / whole; infinite where the part is not finite, or the whole is zero and the part is not."""
    if not torch.isfinite(part):
        return float("inf")
    return float(part / whole) if whole > 0 else float("inf") if part > 0 else 0.0


def describe_differences(deviations: Differences) -> str:
    """Describe the largest of some differences as what a way of computing does."""
    worst = max(each.largest for each in deviations.values())
    if worst == float("inf"):
        return "gives a gradient that is not finite, or should be zero"
    return f"is off by {100 * worst:.3g} % of the gradient's largest value"


def _difference(computed: Tensor, expected: Tensor) -> Difference:
    off = (computed - expected).abs()
    return Difference(ratio(off.max(), expected.abs().max()), ratio(off.sum(), expected.abs().sum()))
