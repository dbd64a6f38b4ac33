"""Weights from files that are not trusted: only tensors are read, and every key must fit."""

import pickle
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

_WRAPPERS = ("state_dict", "model_state_dict", "model")


class WeightsError(ValueError):
    """A weights file that cannot be read, would run code, or does not fit the network."""


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a file into a network, strictly.

    A network may have a method `rename_key(key)` that maps a public repository's key to its own, or to None for a key
    of another network in the same checkpoint. Raises `WeightsError` that names every missing, unexpected, wrongly
    shaped or non-finite key.
    """
    path = Path(path)
    rename: Callable[[str], str | None] = getattr(model, "rename_key", str)
    state = {}
    for key, value in read_state_dict(path).items():
        renamed = rename(key.removeprefix("module."))
        if renamed is not None:
            state[renamed] = value
    problems = _misfits(model.state_dict(), state)
    if problems:
        raise WeightsError(f"weights {path} do not fit {type(model).__name__}: {'; '.join(problems)}")
    model.load_state_dict(state)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or a `torch.save` state dict; never runs code from the file."""
    if not path.is_file():
        raise WeightsError(f"weights {path} not found; expected a safetensors file or a torch.save state dict")
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _load_pickle(path)
    except WeightsError:
        raise
    except Exception as error:  # readers raise whatever a damaged file makes them raise
        raise WeightsError(f"weights {path} cannot be read ({_first_line(error)}); the file may be damaged") from error
    return _as_state_dict(path, content)


def _load_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the error below says what matters
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        found = f"it asks to run {wanted.group(1)}" if wanted else _first_line(error)
        raise WeightsError(
            f"weights {path} refused: {found}, expected tensors only; "
            "save the model's state_dict() again, as safetensors or with torch.save"
        ) from error


def _as_state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise WeightsError(f"weights {path} hold {type(content).__name__}, expected a state dict of tensors by name")
    return {str(key): value for key, value in content.items()}


def _misfits(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    shared = [key for key in expected if key in found]
    groups = {
        "missing": [key for key in expected if key not in found],
        "unexpected": [key for key in found if key not in expected],
        "wrong shape": [
            f"{key} (found {tuple(found[key].shape)}, expected {tuple(expected[key].shape)})"
            for key in shared
            if found[key].shape != expected[key].shape
        ],
        "not finite": [key for key in shared if not torch.isfinite(found[key]).all()],
    }
    return [f"{problem}: {', '.join(keys)}" for problem, keys in groups.items() if keys]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
