"""Laterality of a breast, from words, file names or the position of the tissue."""

import re

import numpy as np
from numpy.typing import NDArray

_WORDS = {"l": "left", "left": "left", "r": "right", "right": "right"}
_VIEWS = "CC|MLO|ML|LM|LMO|XCCL|XCCM|AT"
_SIDE_IN_NAME = re.compile(rf"(?<![a-z])(l|r|left|right)(?=(?:{_VIEWS})?(?![a-z]))", re.IGNORECASE)
_VIEW_IN_NAME = re.compile(rf"(?<![a-z])(?:l|r)?({_VIEWS})(?![a-z])", re.IGNORECASE)

_EDGE = 0.05
_TISSUE_LEVEL = 0.05
_SAMPLES = 400


def parse_laterality(word: str) -> str:
    """Return 'left', 'right' or '' for a word such as L, Right, r."""
    return _WORDS.get(word.strip().lower(), "")


def laterality_from_name(name: str) -> str:
    """Laterality named in a file name, '' if it names none or both."""
    sides = {_WORDS[match.lower()] for match in _SIDE_IN_NAME.findall(name)}
    return sides.pop() if len(sides) == 1 else ""


def view_from_name(name: str) -> str:
    """View named in a file name (CC, MLO, …), '' if it names none or several."""
    views = {match.upper() for match in _VIEW_IN_NAME.findall(name)}
    return views.pop() if len(views) == 1 else ""


def laterality_from_tissue(pixels: NDArray[np.generic]) -> str:
    """Laterality from the side of the chest wall: tissue fills one vertical edge and leaves the other free.

    A left breast enters at the left edge and a right breast at the right, in images that were not mirrored.

    Args:
        pixels: Image (C, H, W); only the first channel is used, and images in colour have no laterality.

    Returns:
        'left', 'right', or '' if both edges are alike, as in pictures of anything else.
    """
    if len(pixels) > 1 and not np.array_equal(_sparse(pixels), _sparse(pixels[1:])):
        return ""
    threshold, _, _ = tissue_threshold(pixels)
    tissue = _sparse(pixels) > threshold
    width = max(1, round(_EDGE * tissue.shape[1]))
    left, right = float(tissue[:, :width].mean()), float(tissue[:, -width:].mean())
    if max(left, right) < 0.1 or min(left, right) > 0.5 * max(left, right):
        return ""
    return "left" if left > right else "right"


def tissue_threshold(pixels: NDArray[np.generic]) -> tuple[float, float, float]:
    """Tissue threshold, background value and bright end (99.5th percentile) of an image (C, H, W)."""
    background, bright = (float(value) for value in np.percentile(_sparse(pixels), (1, 99.5)))
    return background + _TISSUE_LEVEL * (bright - background), background, bright


def _sparse(pixels: NDArray[np.generic]) -> NDArray[np.float32]:
    step = max(1, max(pixels.shape[1:]) // _SAMPLES)
    return np.asarray(pixels[0, ::step, ::step], dtype=np.float32)
