"""Normalisation: the intensity scale on which a network gets its images."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from erf.errors import ImageError, InputError

NORMALISATIONS = {
    "standardise": "each framed image to mean 0 and standard deviation 1, background included",
    "imagenet": "scaled as with `unit`, then ImageNet's mean subtracted, and divided by its standard deviation",
    "unit": "integer pixels divided by the largest value of their type",
    "none": "pixels as they are",
}
"""Normalisations by name. Another one is `MEAN/STD`, with one number or one per channel, which works as `imagenet`.
Both take floating-point pixels from 0 to 1 as they are."""

_IMAGENET = "0.485,0.456,0.406/0.229,0.224,0.225"
_NUMBERS = r"[-+]?[\d.]+(?:e[-+]?\d+)?(?:,[-+]?[\d.]+(?:e[-+]?\d+)?)*"


@dataclass(frozen=True)
class Scaling:
    """Mean and standard deviation of each channel, subtracted and divided after scaling to the unit range."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def parse(cls, text: str, channels: int) -> "Scaling | None":
        """Parse `imagenet` or `MEAN/STD`; None for any other name of `NORMALISATIONS`.

        Args:
            text: the normalisation.
            channels: channels of the network's input.

        Raises:
            InputError: the text is no normalisation, or has a wrong number of values.
        """
        match = re.fullmatch(rf"({_NUMBERS})/({_NUMBERS})", _IMAGENET if text == "imagenet" else text)
        if match is None:
            if text not in NORMALISATIONS:
                known = ", ".join(NORMALISATIONS)
                raise InputError(f"normalisation '{text}' not known; expected one of {known}, or MEAN/STD")
            return None
        try:
            found = cls(*(tuple(float(value) for value in values.split(",")) for values in match.groups()))
        except ValueError as error:
            raise InputError(f"normalisation '{text}' not understood ({error}); expected MEAN/STD") from error
        if {len(found.mean), len(found.deviation)} - {1, channels}:
            raise InputError(
                f"normalisation '{text}' for {channels} channels; expected one mean and deviation, or one per channel"
            )
        limits = np.finfo(np.float32)
        if not (
            min(found.deviation) > float(limits.tiny)
            and max(map(abs, found.mean + found.deviation)) < float(limits.max)
        ):
            raise InputError(
                f"normalisation '{text}' has a deviation that is not positive, or values beyond single precision; "
                "expected MEAN/STD"
            )
        return found

    def apply(self, pixels: NDArray[np.float32]) -> None:
        """Normalise pixels (C, H, W) of the unit range in place."""
        for values, change in ((self.mean, np.subtract), (self.deviation, np.divide)):
            change(pixels, np.asarray(values, np.float32).reshape(-1, 1, 1), out=pixels)


def normalise(path: str, pixels: NDArray[np.float32], name: str, dtype: np.dtype[Any]) -> None:
    """Normalise framed pixels (C, H, W) in place.

    Args:
        path: name of the image, for errors.
        pixels: the pixels, on the scale of the file.
        name: key of `NORMALISATIONS`, or MEAN/STD.
        dtype: type of the pixels in the file.

    Raises:
        ImageError: the pixels cannot be normalised.
    """
    if name == "standardise":
        _standardise(path, pixels)
    elif name != "none":
        scaling = Scaling.parse(name, len(pixels))
        if dtype.kind in "ui":
            pixels /= np.float32(np.iinfo(dtype).max)
        elif scaling is None or pixels.min() < 0 or pixels.max() > 1:
            raise ImageError(
                f"{path}: {dtype} pixels have no full scale", remedy="use `normalisation` standardise or none"
            )
        if scaling is not None:
            scaling.apply(pixels)


def _standardise(path: str, pixels: NDArray[np.float32]) -> None:
    if pixels.min() == pixels.max():
        raise ImageError(f"{path}: the part inside the frame is constant", remedy="use a larger `size`")
    pixels -= np.float32(pixels.mean(dtype=np.float64))
    # Row by row: numpy.std in float64 would allocate two full-size temporaries.
    squares = sum(float(np.vdot(row, row)) for row in pixels.reshape(-1, pixels.shape[-1]))
    deviation = np.float32(np.sqrt(squares / pixels.size))
    if not (np.isfinite(deviation) and deviation > np.finfo(np.float32).tiny):
        raise ImageError(f"{path}: pixels are too large or too small to be standardised; rescale the image")
    pixels /= deviation
