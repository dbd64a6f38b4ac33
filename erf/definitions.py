"""Definitions of the ERF: reductions of the signed input gradient of a unit to a map.

The first four are applied to every input channel, and the channels are summed after; in `relu-sum` (OpenERF) and
`abs-sum` (local attribution maps, arXiv 2011.11036) they are summed before, so that opposite signs cancel. `signed` is
the mean gradient of Luo et al. (NIPS 2016, arXiv 1701.04128); `relu` is the rule of Ding et al. (CVPR 2022, arXiv
2203.06717), `square` the quantity whose expectation over random weights has a closed form.
"""

from collections.abc import Callable, Sequence
from typing import Any

DEFAULT_DEFINITION = "abs"

DEFINITIONS: dict[str, Callable[[Any], Any]] = {
    "signed": lambda gradient: gradient.sum(-3),
    "abs": lambda gradient: abs(gradient).sum(-3),
    "relu": lambda gradient: gradient.clip(min=0).sum(-3),
    "square": lambda gradient: (gradient * gradient).sum(-3),
    "relu-sum": lambda gradient: gradient.sum(-3).clip(min=0),
    "abs-sum": lambda gradient: abs(gradient.sum(-3)),
}
"""Reductions by name, of an array (NumPy or PyTorch) (..., C, H, W) to (..., H, W)."""


def shown_definition(names: Sequence[str]) -> str:
    """Return the definition, of those of a run, that tables and pictures show by default."""
    return DEFAULT_DEFINITION if DEFAULT_DEFINITION in names else names[0]
