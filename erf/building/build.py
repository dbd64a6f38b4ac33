"""Networks built from a name, a module or code, with weights from any source."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from erf.building.network import Network, Warn, warn_of_assumption
from erf.building.weights import file_state, find_weights, hidden_branches, origin_of_weights
from erf.errors import InputError
from erf.images.size import Size, as_size
from erf.models import ModelCard, WeightsError, create_model, load_weights, model_card
from erf.models.libraries import FALLBACK_SIZE
from erf.models.mamba import plain_selective_scan
from erf.models.sources import input_axes, input_channels, input_names, module_card
from erf.network.inputs import Arguments

_OWN = ("seed", "trust", "weights")
"""Arguments of `build_network` that are no options of a network."""


Model = str | nn.Module | Network | Callable[..., nn.Module]


def build_network(
    model: Model,
    weights: str | Path | None = None,
    *,
    seed: int | None = None,
    size: Size | None = None,
    model_args: Mapping[str, Any] | None = None,
    depth: int = 0,
    trust: bool = False,
    warn: Warn = warn_of_assumption,
) -> Network:
    """Build a network with its weights, and find out what input it takes.

    Example:
        >>> import erf
        >>> network = erf.build_network("gmic", size=(256, 192))
        >>> network.layers(), network.input_shape
        (('final',), (1, 256, 192))

    Args:
        model: name as for `erf.models.create_model` (registered, `timm:NAME`, `file.py:factory`, …), module, function
            that returns a module, or a network, which is returned as it is.
        weights: file (safetensors or a `torch.save` state dict), 'shipped', 'none', `timm:TAG`, or None for shipped
            weights if there are any, and else an untrained network.
        seed: seed of untrained weights; None for 0, or that of a network.
        size: (height, width) of the input in pixels, or the side of a square; None for the network's own.
        model_args: options of the network.
        depth: slices of a volume, for networks with 3-D convolutions.
        trust: whether an archive `file.pt2`, which is code, may be opened.
        warn: called with one line where a value is assumed; default: an `AssumptionWarning`.

    Returns:
        The network, with the description of its input. A module that is given keeps its mode; others are in eval mode.

    Raises:
        InputError: an option belongs elsewhere, or `depth` is missing.
        ModelError: the network cannot be built.
        WeightsError: the weights cannot be read, do not fit, or changed meanwhile.
    """
    options = dict(model_args or {})
    size = None if size is None else as_size(size)
    if taken := sorted(set(_OWN) & options.keys()):
        raise InputError(f"'{taken[0]}' is no option of a network", remedy=f"give it as `{taken[0]}`")
    if isinstance(model, Network):
        _check_nothing_given(model, weights, seed, size, options)
        return model
    with plain_selective_scan() as stand_in:
        model, called = _without_function(model, options)
    seed = seed or 0
    card = module_card(model) if isinstance(model, nn.Module) else model_card(model)
    name = card.name
    file = find_weights(name, weights, bool(options))
    before = file_state(file)
    with plain_selective_scan() as later:
        built = _built(model, file, {"seed": seed, "size": size} | ({} if called else options) | {"trust": trust})
    if stand_in.is_used or later.is_used:
        warn(f"{name} asks for mamba_ssm, which is not installed; its selective scan is computed in plain PyTorch")
    arguments, channels = _input(name, built, card, options, depth)
    for found in hidden_branches(built) if file is None and not card.brings_weights else ():
        warn(
            f"{name} is untrained and {found}: its residual branches are hidden, and the field shown is that of its "
            "shortcuts"
        )
    frame = size or _own_size(name, built, card, warn)
    source, digest = origin_of_weights(name, built, card, file)
    if file_state(file) != before:
        raise WeightsError(f"weights {file} were changed while they were read; try again")
    return Network(name, built, card, frame, channels, arguments, options, seed, source, digest)


def own_normalisation(model: Model) -> str:
    """Return the normalisation that a network by name, or one that is built, expects; '' for modules and functions."""
    if isinstance(model, Network):
        return model.card.preprocessing.normalisation
    return model_card(model).preprocessing.normalisation if isinstance(model, str) else ""


def _check_nothing_given(
    network: Network,
    weights: str | Path | None,
    seed: int | None,
    size: tuple[int, int] | None,
    options: Mapping[str, Any],
) -> None:
    """Raise `InputError` for what a network that is built has already."""
    given = {
        "weights": weights is not None,
        "seed": seed not in (None, network.seed),
        "size": size not in (None, network.size),
        "model_args": bool(options),
    }
    if wrong := [name for name, is_given in given.items() if is_given]:
        raise InputError(f"{wrong[0]} of a network that is built", remedy="give it to `build_network`")


def _without_function(
    model: str | nn.Module | Callable[..., nn.Module], options: Mapping[str, Any]
) -> tuple[str | nn.Module, bool]:
    """Return the name or module, and whether it was returned by a function, which has taken the options."""
    if isinstance(model, nn.Module) and options:
        raise InputError(f"'{next(iter(options))}' for a module that is built; options belong to names and functions")
    if isinstance(model, str | nn.Module):
        return model, False
    found = model(**options) if callable(model) else model
    if not isinstance(found, nn.Module):
        raise InputError(
            f"a model of type {type(found).__name__}; expected a name, a module, or a function that returns one"
        )
    return found, True


def _built(model: str | nn.Module, weights: Path | None, options: Mapping[str, Any]) -> nn.Module:
    if isinstance(model, str):
        return create_model(model, weights, **options)
    if weights is not None:
        load_weights(model, weights)
    return model


def _input(
    name: str, model: nn.Module, card: ModelCard, options: Mapping[str, Any], depth: int
) -> tuple[Arguments, int]:
    """Return how a network takes its input, and its channels.

    Of an external network they are inferred from its first convolution and the signature of `forward`.
    """
    if card.in_channels:
        return Arguments(), options.get("in_channels", card.in_channels)
    axes, channels = input_axes(model), input_channels(model)
    if axes == 3 and not depth:
        raise InputError(
            f"{name} takes volumes (its first convolution is 3-D)", remedy="give the number of their slices as `depth`"
        )
    arguments = Arguments(input_names(model), depth if axes == 3 else 0, axes == 1)
    return arguments, channels * max(arguments.depth, 1)


def _own_size(name: str, model: nn.Module, card: ModelCard, warn: Warn) -> tuple[int, int]:
    """Return the input size from the card or the network, or a fallback, which is reported by a warning."""
    if all(card.input_size):
        return card.input_size
    for attribute in ("img_size", "image_size", "input_size"):
        found = getattr(model, attribute, None)
        found = (found, found) if isinstance(found, int) else found
        if isinstance(found, tuple | list) and len(found) >= 2 and all(isinstance(one, int) for one in found):
            return (found[-2], found[-1])
    warn(
        f"{name} does not tell the size of its input; {FALLBACK_SIZE[0]}x{FALLBACK_SIZE[1]} is taken, `size` changes it"
    )
    return FALLBACK_SIZE
