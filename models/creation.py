"""Create networks by name, from the registry or from an external source."""

import difflib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .errors import ModelError
from .registry import ModelCard, list_models, registered
from .sources import WORDS, is_source, source_card
from .weights import load_weights

TIMM_TAG = "timm:"


def model_card(name: str) -> ModelCard:
    """Return the card of a network from the registry or from an external source (`erf.models.sources`).

    Raises:
        ModelError: the name is unknown; the message suggests the closest names.
    """
    card = registered(name)
    if card is not None:
        return card
    if is_source(name):
        return source_card(name)
    near = difflib.get_close_matches(name, list_models(), n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"expected one that `list_models` lists, or {WORDS}"
    raise ModelError(f"unknown model '{name}'", remedy=hint)


def create_model(
    name: str,
    /,
    weights: str | Path | None = None,
    *,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    trust: bool = False,
    **options: Any,
) -> nn.Module:
    """Build a network in eval mode.

    Args:
        name: name in the registry, or an external source (`erf.models.sources`). A factory named there is executed.
        weights: file that replaces the initial weights (safetensors, or a `torch.save` state dict with our key names or
            those of the public repository), or `timm:TAG`, which timm downloads.
        seed: seed of the initial weights and random projections; the global random state is not changed.
        size: (height, width) of the input in pixels, for networks whose parameters belong to one size; the others take
            any size and ignore it.
        trust: whether to open an archive `file.pt2`, which can run arbitrary code when it is opened.
        options: passed to the network.

    Raises:
        ModelError: unknown name or options, or an archive without `trust`.
        WeightsError: the weights cannot be read or do not fit the network.
    """
    card = model_card(name)
    if card.sized:
        options["size"] = size or card.input_size
    if card.guarded:
        options["trust"] = trust
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
    if card.default_layer:
        model.default_layer = card.default_layer  # type: ignore[assignment]  # where it is measured without its name
    return model.eval()
