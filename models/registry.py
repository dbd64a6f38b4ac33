"""The registry of networks: one card per name."""

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from .errors import ModelError

MAMMOGRAM_SIZE = (3328, 2560)


@dataclass(frozen=True)
class ModelCard:
    """What is known about a network before it is built."""

    name: str
    summary: str
    paper: str
    build: Callable[..., nn.Module]
    parameters: int
    """Number of parameters with default options."""
    layers: tuple[str, ...]
    """Tap points, from input to output; each is the path of a module."""
    in_channels: int = 1
    input_size: tuple[int, int] = MAMMOGRAM_SIZE
    """Default (height, width) of the input, in pixels."""
    normalisation: str = "standardise"
    """What the network expects its input to have gone through."""
    default_layer: str = "final"
    sized: bool = False
    """Whether `build` takes the (height, width) of the input as `size`, because parameters may belong to it."""
    brings_weights: bool = False
    """Whether what `build` returns may have been trained."""
    guarded: bool = False
    """Whether `build` runs code out of a file that looks like data, unless its argument `trust` is False."""
    tagged: bool = False
    """Whether `build` takes the `tag` of weights that timm offers."""


_CARDS: dict[str, ModelCard] = {}


def register(card: ModelCard) -> ModelCard:
    """Enter a card; a name can be taken once."""
    if card.name in _CARDS:
        raise ModelError(f"model name '{card.name}' is registered already")
    _CARDS[card.name] = card
    return card


def list_models(pattern: str = "*") -> list[str]:
    """Names that match a shell-style pattern, in alphabetical order."""
    return sorted(fnmatch.filter(_CARDS, pattern))


def registered(name: str) -> ModelCard | None:
    """The card of this name, if there is one."""
    return _CARDS.get(name)
