"""The registry of networks: one card per name."""

import difflib
import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .weights import load_weights

MAMMOGRAM_SIZE = (3328, 2560)

TIMM_TAG = "timm:"


class ModelError(ValueError):
    """A network was asked for by an unknown name or with options that it does not have."""


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


def model_card(name: str) -> ModelCard:
    """The card of a network; `ModelError` offers the nearest names for an unknown one."""
    if name not in _CARDS:
        near = difflib.get_close_matches(name, _CARDS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known models: {', '.join(list_models())}"
        raise ModelError(f"unknown model '{name}'; {hint}")
    return _CARDS[name]


def create_model(
    name: str,
    weights: str | Path | None = None,
    *,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    **options: Any,
) -> nn.Module:
    """Build a network in eval mode.

    Initial weights and random projections are drawn from `seed` without touching the global random state; a weights
    file (safetensors, or a `torch.save` state dict in our naming or that of the public repository) replaces them, or
    `timm:TAG`, which timm downloads. `size` is the (height, width) of the input, for networks whose parameters belong
    to one size; others take any.
    """
    card = model_card(name)
    if card.sized:
        options["size"] = size or card.input_size
    if str(weights).startswith(TIMM_TAG):
        if not card.tagged:
            raise ModelError(f"model '{name}' has no weights '{weights}'; expected a weights file")
        options["tag"], weights = str(weights).removeprefix(TIMM_TAG), None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = card.build(**options)
        except TypeError as error:
            raise ModelError(f"model '{name}' does not take these options: {error}") from error
    if weights is not None:
        load_weights(model, weights)
    return model.eval()
