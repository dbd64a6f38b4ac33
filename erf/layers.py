"""Tap points: a layer is a module of the network, named by its path, whose output is a map."""

import difflib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from torch import Tensor, nn

from erf.errors import LayerError

T = TypeVar("T")


class _AllReached(Exception):  # noqa: N818 (a way out, not an error)
    """Ends a forward pass when all tapped layers were reached."""


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The module with this path; `LayerError` offers the nearest names."""
    modules = {path: module for path, module in model.named_modules() if path}
    if name not in modules:
        near = difflib.get_close_matches(name, modules, n=3, cutoff=0.5) or list(dict(model.named_children()))
        raise LayerError(f"unknown layer '{name}' in {type(model).__name__}; the nearest are {', '.join(near)}")
    return modules[name]


def forward_to(
    model: nn.Module, names: Sequence[str], inputs: Tensor, take: Callable[[str, Tensor], T]
) -> dict[str, T]:
    """Run the model as far as the last of some layers; what `take` makes of the map (N, C, H, W) of each, by name.

    It is called as soon as a layer returns, before the network can change the map in place.
    """
    taken: dict[str, T] = {}

    def tap(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def note(module: nn.Module, args: Any, output: Any) -> None:
            taken[name] = take(name, _as_map(name, output))
            if len(taken) == len(names):
                raise _AllReached

        return note

    handles = [find_layer(model, name).register_forward_hook(tap(name)) for name in names]
    with suppress(_AllReached):
        try:
            model(inputs)
        finally:
            for handle in handles:
                handle.remove()
    for name in names:
        if name not in taken:
            raise LayerError(
                f"layer '{name}' is not called in the forward pass of {type(model).__name__}; choose another"
            )
    return {name: taken[name] for name in names}


def _as_map(name: str, output: Any) -> Tensor:
    if not isinstance(output, Tensor):
        raise LayerError(f"layer '{name}' returns {type(output).__name__}, expected a tensor (N, C, H, W)")
    if output.ndim != 4:
        raise LayerError(f"layer '{name}' returns shape {tuple(output.shape)}, expected a map (N, C, H, W)")
    return output


def center_unit(feature_shape: tuple[int, int]) -> tuple[int, int]:
    """(H // 2, W // 2): of an even number of units the one below and to the right of the middle."""
    return feature_shape[0] // 2, feature_shape[1] // 2


def resolve_unit(unit: str | tuple[int, int], layer: str, feature_shape: tuple[int, int]) -> tuple[int, int]:
    """A unit as (y, x), from 'center' or indices that must lie in the map."""
    if unit == "center":
        return center_unit(feature_shape)
    if isinstance(unit, str):
        raise LayerError(f"unit '{unit}' not understood; expected 'center' or a position y,x in the layer")
    height, width = feature_shape
    if not (0 <= unit[0] < height and 0 <= unit[1] < width):
        raise LayerError(
            f"unit {unit[0]},{unit[1]} lies outside layer '{layer}', whose map is {height}x{width}; "
            f"expected y below {height} and x below {width}"
        )
    return unit
