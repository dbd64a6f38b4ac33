"""Preprocessing that a network was trained with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preprocessing:
    """How a network expects its images, in the terms of `erf.images`."""

    normalisation: str = "standardise"
    fit: str = "pad"
    interpolation: str = "bilinear"
    source: str = ""
    """Configuration from which it was read; '' for the default of mammograms."""


MAMMOGRAMS = Preprocessing()
"""Preprocessing of networks for mammograms, and of those that have no configuration."""


def of_timm(config: Any) -> Preprocessing:
    """Read the evaluation preprocessing of a timm network from its configuration (`PretrainedCfg`)."""
    fit = "squash" if config.crop_mode == "squash" else "crop"
    return Preprocessing(
        scaling(config.mean, config.std),
        fit if config.crop_pct in (None, 1.0) else f"{fit}:{config.crop_pct:g}",
        config.interpolation if config.interpolation in ("bilinear", "bicubic", "nearest", "lanczos") else "bicubic",
        source="timm's configuration",
    )


def of_torchvision(transforms: Any) -> Preprocessing:
    """Read the preprocessing of a torchvision network from the transforms of its default weights.

    Args:
        transforms: preset such as `ImageClassification`; the default preprocessing is returned for presets without mean
            and size.
    """
    mean, resized = getattr(transforms, "mean", None), getattr(transforms, "resize_size", None)
    if mean is None or not resized:
        return MAMMOGRAMS
    cropped = getattr(transforms, "crop_size", None) or resized
    fit = "crop" if cropped[0] == resized[0] else f"crop:{cropped[0] / resized[0]:.6g}"
    interpolation = str(getattr(transforms.interpolation, "value", "bilinear"))
    return Preprocessing(scaling(mean, transforms.std), fit, interpolation, source="torchvision's default weights")


def scaling(mean: Sequence[float], deviation: Sequence[float]) -> str:
    """Write mean and standard deviation of the channels as a normalisation MEAN/STD."""
    return "/".join(",".join(f"{value:.9g}" for value in values) for values in (mean, deviation))
