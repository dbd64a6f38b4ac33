"""Tap points: a layer is a module of the network, named by its path, whose output is a map."""

import difflib
from typing import Any

from torch import Tensor, nn

from erf.errors import LayerError


class _Reached(Exception):  # noqa: N818 (a way out, not an error)
    """Ends a forward pass at the tapped layer."""

    def __init__(self, output: Any) -> None:
        self.output = output


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The module with this path; `LayerError` offers the nearest names."""
    modules = {path: module for path, module in model.named_modules() if path}
    if name not in modules:
        near = difflib.get_close_matches(name, modules, n=3, cutoff=0.5) or list(dict(model.named_children()))
        raise LayerError(f"unknown layer '{name}' in {type(model).__name__}; the nearest are {', '.join(near)}")
    return modules[name]


def forward_to(model: nn.Module, name: str, inputs: Tensor) -> Tensor:
    """Run the model as far as a layer and return the layer's map (N, C, H, W)."""

    def stop(module: nn.Module, args: Any, output: Any) -> None:
        raise _Reached(output)

    handle = find_layer(model, name).register_forward_hook(stop)
    try:
        model(inputs)
    except _Reached as reached:
        return _as_map(name, reached.output)
    finally:
        handle.remove()
    raise LayerError(f"layer '{name}' is not called in the forward pass of {type(model).__name__}; choose another")


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
