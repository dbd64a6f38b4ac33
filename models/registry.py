"""The registry of networks: one card per name."""

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from .errors import ModelError
from .preprocessing import MAMMOGRAMS, Preprocessing

MAMMOGRAM_SIZE = (3328, 2560)


@dataclass(frozen=True)
class ModelCard:
    """Description of a network, available before it is built."""

    name: str
    summary: str
    paper: str
    build: Callable[..., nn.Module]
    parameters: int
    """Number of parameters with default options."""
    layers: tuple[str, ...]
    """Layers to compute receptive fields for, from input to output; each is the path of a module."""
    in_channels: int = 1
    input_size: tuple[int, int] = MAMMOGRAM_SIZE
    """Default (height, width) of the input, in pixels."""
    preprocessing: Preprocessing = MAMMOGRAMS
    """Preprocessing that the network expects of its images."""
    default_layer: str = "final"
    sized: bool = False
    """Whether `build` takes the (height, width) of the input as `size`, because parameters may depend on it."""
    brings_weights: bool = False
    """Whether the network that `build` returns may already be trained."""
    guarded: bool = False
    """Whether `build` runs code from a file that looks like data, unless its argument `trust` is False."""
    tagged: bool = False
    """Whether `build` takes the `tag` of timm's pretrained weights."""


_CARDS: dict[str, ModelCard] = {}


def register(card: ModelCard) -> ModelCard:
    """Add a card to the registry; `ModelError` if its name is taken."""
    if card.name in _CARDS:
        raise ModelError(f"model name '{card.name}' is registered already")
    _CARDS[card.name] = card
    return card


def list_models(pattern: str = "*") -> list[str]:
    """List the names that match a shell-style pattern, in alphabetical order."""
    return sorted(fnmatch.filter(_CARDS, pattern))


def registered(name: str) -> ModelCard | None:
    """Return the card of this name, or None."""
    return _CARDS.get(name)
