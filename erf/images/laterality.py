"""On which side a breast is: from words, from file names, from where the tissue lies."""

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
    """'left', 'right' or '' for a word such as L, Right, r."""
    return _WORDS.get(word.strip().lower(), "")


def laterality_from_name(name: str) -> str:
    """The side that a file name tells, '' where it tells none or both."""
    sides = {_WORDS[match.lower()] for match in _SIDE_IN_NAME.findall(name)}
    return sides.pop() if len(sides) == 1 else ""


def view_from_name(name: str) -> str:
    """The view that a file name tells (CC, MLO, …), '' where it tells none."""
    views = {match.upper() for match in _VIEW_IN_NAME.findall(name)}
    return views.pop() if len(views) == 1 else ""


def laterality_from_tissue(pixels: NDArray[np.generic]) -> str:
    """The side of the chest wall: tissue fills one vertical edge and leaves the other free.

    A left breast enters at the left edge and a right breast at the right, in images that were not mirrored. Returns ''
    where both edges are alike, as in pictures of anything else. Takes (C, H, W).
    """
    threshold, _, _ = tissue_threshold(pixels)
    tissue = _sparse(pixels) > threshold
    width = max(1, round(_EDGE * tissue.shape[1]))
    left, right = float(tissue[:, :width].mean()), float(tissue[:, -width:].mean())
    if max(left, right) < 0.1 or min(left, right) > 0.5 * max(left, right):
        return ""
    return "left" if left > right else "right"


def tissue_threshold(pixels: NDArray[np.generic]) -> tuple[float, float, float]:
    """Values of an image (C, H, W): above which it is tissue, of the background, and of the bright end."""
    background, bright = (float(value) for value in np.percentile(_sparse(pixels), (1, 99.5)))
    return background + _TISSUE_LEVEL * (bright - background), background, bright


def _sparse(pixels: NDArray[np.generic]) -> NDArray[np.float32]:
    step = max(1, max(pixels.shape[1:]) // _SAMPLES)
    return np.asarray(pixels[0, ::step, ::step], dtype=np.float32)
