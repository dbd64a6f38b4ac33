"""Networks of libraries: their cards, and one-line errors of the calls that build them."""

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from .errors import ModelError
from .registry import ModelCard

FALLBACK_SIZE = (512, 512)
"""(height, width) of the input, in pixels, for networks that do not define their own."""


def external_card(name: str, summary: str, build: Callable[..., nn.Module], **more: Any) -> ModelCard:
    """Make the card of a network outside the registry; what only the built network tells stays empty."""
    card: dict[str, Any] = {"in_channels": 0, "input_size": (0, 0), "default_layer": ""} | more
    return ModelCard(name=name, summary=summary, paper="", build=build, parameters=0, layers=(), **card)


def check_untrained(name: str, options: Mapping[str, Any], loading: Sequence[str]) -> None:
    """Refuse options that load weights: the file they come from would not be recorded."""
    for option in loading:
        if options.get(option) is not None:
            raise ModelError(f"{name} would load weights by its option {option}", remedy="give them as `weights`")


def called(name: str, build: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call what builds a network; `ModelError` for whatever it raises."""
    try:
        return build(*args, **options)
    except Exception as error:  # a factory may raise anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        given = ", ".join(f"{key}={value}" for key, value in options.items()) or "no options"
        raise ModelError(f"{name} cannot be built with {given} ({reason})") from error


def as_module(name: str, found: Any) -> nn.Module:
    """Return a network that was built; `ModelError` for anything else."""
    if not isinstance(found, nn.Module):
        raise ModelError(f"{name} returned {type(found).__name__}; expected a torch.nn.Module")
    return found


def library(module: str, extra: str) -> Any:
    """Import a library; `ModelError` names the extra that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ModelError(
            f"{module} is not installed ({error}); install it with pip install 'erf-toolkit[{extra}]'"
        ) from error


def check_known(name: str, known: Iterable[str], library: str) -> None:
    """Raise `ModelError` with the nearest names if a library has no network of this name."""
    names = list(known)
    if name not in names:
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        raise ModelError(
            f"{library} has no network '{name}'" + (f"; did you mean {' or '.join(near)}?" if near else "")
        )
