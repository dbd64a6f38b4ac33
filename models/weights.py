"""Load weights from untrusted files: only tensors are read, and every key, shape and type must fit."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .errors import WeightsError
from .files import StoredTensor, open_tensors

_WRAPPERS = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights", "params")
_AVERAGES = ("ema", "model_ema", "state_dict_ema", "ema_state_dict", "params_ema", "teacher")
"""Names under which checkpoints keep a state dict (`_WRAPPERS`), and one averaged over training (`_AVERAGES`)."""

_DEEPEST = 3
"""Most nested dictionaries around a state dict; a dictionary may contain itself."""

_PREFIXES = ("module.", "_orig_mod.")
"""Prefixes that wrappers for several devices and compiled networks add to every key."""

_MOST_NAMED = 8
"""Most keys that a message names per problem."""


def load_weights(model: nn.Module, path: str | Path) -> None:
    """Load a weights file into a network, strictly and in place.

    A network may have a method `rename_key(key)` that maps a public repository's key to its own, or to None for a key
    of another network in the same checkpoint.

    Raises:
        WeightsError: the file cannot be read, or keys are missing, unexpected, of wrong shape or type, or not finite;
            the message names them, and nothing is loaded.
    """
    path = Path(path)
    # A module's state may contain other objects than tensors, which its own hooks load.
    expected = {key: value for key, value in model.state_dict().items() if isinstance(value, Tensor)}
    with open_tensors(path) as content:
        stored = _renamed(path, expected, getattr(model, "rename_key", str), _state_dict(path, content, expected))
        problems = _misfits(expected, stored)
        fitting = set(expected) - set().union(*problems.values())
        state = {key: stored[key].read() for key in expected if key in fitting}
    problems |= _unusable(expected, state)
    if found := [f"{problem}: {_names(keys.values())}" for problem, keys in problems.items() if keys]:
        raise WeightsError(f"weights {path} do not fit {type(model).__name__}: {'; '.join(found)}")
    _load(path, model, {key: values.to(expected[key].dtype) for key, values in state.items()})


def _load(path: Path, model: nn.Module, state: Mapping[str, Tensor]) -> None:
    try:
        model.load_state_dict(state)
    except Exception as error:  # a network's own hooks may raise anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise WeightsError(f"weights {path} cannot be loaded into {type(model).__name__} ({reason})") from error
    loaded = model.state_dict()
    for key, values in state.items():
        if not torch.equal(loaded[key].cpu(), values):
            raise WeightsError(
                f"weights {path}: {key} took another value than the file has; the network shares it with another key "
                "of the file, whose values differ"
            )


def _state_dict(path: Path, content: Any, own: Mapping[str, Tensor]) -> Mapping[Any, StoredTensor]:
    """Return the only state dict in a file's content, which may be nested in other dictionaries."""
    if _is_state_dict(content):
        return content
    inner = ((key, _within(content, key)) for key in (*_WRAPPERS, *_AVERAGES))
    found = {key: one for key, one in inner if one is not None}
    if len(found) > 1:
        raise WeightsError(
            f"weights {path} hold several state dicts ({', '.join(found)}); save the one that is meant alone"
        )
    if not found:
        what = f"a dictionary of {_names(content)}" if isinstance(content, Mapping) else _kind(content)
        raise WeightsError(f"weights {path} hold {what}, expected a state dict of tensors by name")
    others = [key for key, one in content.items() if isinstance(one, StoredTensor) and _bare(str(key), own) in own]
    if others:
        raise WeightsError(
            f"weights {path} hold {_names(others)} next to a state dict under '{next(iter(found))}'; save the one "
            "that is meant alone"
        )
    return next(iter(found.values()))


def _within(content: Any, key: str, depth: int = 1) -> Mapping[Any, StoredTensor] | None:
    inner = content.get(key) if isinstance(content, Mapping) else None
    if inner and _is_state_dict(inner):
        return inner
    if depth == _DEEPEST or not isinstance(inner, Mapping):
        return None
    deeper = (_within(inner, further, depth + 1) for further in ("state_dict", "model"))
    return next((one for one in deeper if one is not None), None)


def _is_state_dict(content: Any) -> bool:
    return isinstance(content, Mapping) and all(isinstance(one, StoredTensor) for one in content.values())


def _kind(content: Any) -> str:
    return "a single tensor" if isinstance(content, StoredTensor) else type(content).__name__


def _renamed(
    path: Path, own: Mapping[str, Tensor], rename: Callable[[str], str | None], state: Mapping[Any, StoredTensor]
) -> dict[str, StoredTensor]:
    """Rename keys to the network's own, and drop those of other networks."""
    renamed: dict[str, StoredTensor] = {}
    origins: dict[str, Any] = {}
    for key, tensor in state.items():
        name = rename(_bare(str(key), own))
        if name in renamed:
            raise WeightsError(f"weights {path} hold {name} twice, as {origins[name]!r} and as {key!r}")
        if name is not None:
            renamed[name], origins[name] = tensor, key
    return renamed


def _bare(key: str, own: Mapping[str, Tensor]) -> str:
    while key not in own and key.startswith(_PREFIXES):
        key = key.split(".", maxsplit=1)[1]
    return key


def _misfits(expected: Mapping[str, Tensor], found: Mapping[str, StoredTensor]) -> dict[str, dict[str, str]]:
    """Return, per problem, the affected keys and a description of each; no tensor is read."""
    shared = {key: (expected[key], found[key]) for key in expected if key in found}
    return {
        "missing": {key: key for key in expected if key not in found},
        "unexpected": {key: key for key in found if key not in expected},
        "no plain values": {key: f"{key} ({one.kind})" for key, (_, one) in shared.items() if one.dtype is None},
        "wrong type": {
            key: f"{key} (found {_word(one.dtype)}, expected {_word(own.dtype)})"
            for key, (own, one) in shared.items()
            if one.dtype is not None and not _takes(own.dtype, one.dtype)
        },
        "wrong shape": {
            key: f"{key} (found {one.shape}, expected {tuple(own.shape)})"
            for key, (own, one) in shared.items()
            if one.dtype is not None and one.shape != tuple(own.shape)
        },
    }


def _unusable(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, dict[str, str]]:
    """Return the same, for problems with values that were read."""
    pairs = {key: (expected[key], values) for key, values in state.items()}
    return {
        "too large": {
            key: f"{key} (for {_word(own.dtype)})"
            for key, (own, values) in pairs.items()
            if _overflow(values, own.dtype)
        },
        # A network may contain infinite constants, such as masks.
        "not finite": {key: key for key, (own, values) in pairs.items() if _has_gaps(values) and not _has_gaps(own)},
    }


def _overflow(values: Tensor, dtype: torch.dtype) -> bool:
    cast = values.to(dtype)
    if dtype in _INTEGERS:
        return not torch.equal(cast.to(values.dtype), values)
    return _has_gaps(cast) and not _has_gaps(values)


def _has_gaps(values: Tensor) -> bool:
    """Whether some values are NaN or infinite."""
    return not bool(torch.isfinite(values).all())


def _names(keys: Iterable[Any]) -> str:
    """Join names with commas, at most the first `_MOST_NAMED`."""
    names = [str(key) if len(str(key)) <= 200 else f"{str(key)[:200]}…" for key in keys]
    shown = ", ".join(names[:_MOST_NAMED])
    return shown if len(names) <= _MOST_NAMED else f"{shown} and {len(names) - _MOST_NAMED} more"


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _takes(expected: torch.dtype, found: torch.dtype) -> bool:
    """Whether values keep their meaning in another type: integers and 8-bit floats need a scale to be weights."""
    if found == expected:
        return True
    if expected.is_complex:
        return found.is_complex
    return any(expected in kind and found in kind for kind in (_FLOATS, _INTEGERS))
