"""Networks by name: of the registry, or from elsewhere."""

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
    """The card of a network, of the registry or from elsewhere (`erf.models.sources`).

    `ModelError` offers the nearest names for an unknown one.
    """
    card = registered(name)
    if card is not None:
        return card
    if is_source(name):
        return source_card(name)
    near = difflib.get_close_matches(name, list_models(), n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"expected one that `erf models` lists, or {WORDS}"
    raise ModelError(f"unknown model '{name}'; {hint}")


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

    Initial weights and random projections are drawn from `seed` without touching the global random state; a weights
    file (safetensors, or a `torch.save` state dict in our naming or that of the public repository) replaces them, or
    `timm:TAG`, which timm downloads. `size` is the (height, width) of the input, for networks whose parameters belong
    to one size; others take any. An archive `file.pt2` can run any code when it is opened and is refused without
    `trust`; a factory is run as it is named.
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
    return model.eval()
