"""Preprocessing that a network was trained with."""

from collections.abc import Mapping, Sequence
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
    share = config.crop_pct or 1.0
    return Preprocessing(
        scaling(config.mean, config.std),
        fit if share >= 1 else f"{fit}:{share:g}",  # above 1, as of VOLO, timm adds a black border
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
    fit = _cropped(cropped[0], resized[0])
    interpolation = str(getattr(transforms.interpolation, "value", "bilinear"))
    return Preprocessing(scaling(mean, transforms.std), fit, interpolation, source="torchvision's default weights")


def _cropped(side: int, resized: int) -> str:
    """Write the fit that takes the middle of so many pixels of an image whose shorter side is scaled to `resized`."""
    share = 10**6 * side // resized / 10**6  # rounded down: the side found from a larger share is a pixel less
    return f"crop:{share:g}" if side < resized else "crop"


def scaling(mean: Sequence[float], deviation: Sequence[float]) -> str:
    """Write mean and standard deviation of the channels as a normalisation MEAN/STD."""
    return "/".join(",".join(f"{value:.9g}" for value in values) for values in (mean, deviation))


def of_huggingface(config: Mapping[str, Any]) -> Preprocessing:
    """Read the preprocessing of a network of transformers from the content of its preprocessor_config.json.

    Args:
        config: with `image_mean` and `image_std`; the default preprocessing is returned without them.
    """
    mean, deviation = (_numbers(config.get(name)) for name in ("image_mean", "image_std"))
    if not (config.get("do_normalize", True) and mean and deviation):
        return MAMMOGRAMS
    resized, cropped = _side(config.get("size")), _side(config.get("crop_size"))
    is_cropped = bool(config.get("do_center_crop") and resized and cropped)
    fit = _cropped(cropped, resized) if is_cropped else "squash"
    interpolations = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # of Pillow
    resample = config.get("resample")
    interpolation = interpolations.get(resample, "bilinear") if isinstance(resample, int) else "bilinear"
    return Preprocessing(scaling(mean, deviation), fit, interpolation, source="Hugging Face's configuration")


def _numbers(values: Any) -> list[float]:
    """Return the numbers of a list; none if it is something else."""
    is_list = isinstance(values, list) and all(isinstance(value, int | float) for value in values)
    return values if is_list else []


def _side(size: Any) -> int:
    """Return the shorter side of a size as transformers writes it; 0 if it is not understood."""
    if isinstance(size, Mapping):
        known = [size[key] for key in ("shortest_edge", "height", "width") if isinstance(size.get(key), int)]
        return max(0, min(known, default=0))
    return max(0, size) if isinstance(size, int) else 0
