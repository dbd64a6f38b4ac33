"""Rules of sliding windows: convolution, pooling, unfolding, and shuffles of pixels."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from erf.theory import sampling
from erf.theory.operators.axes import along_axis, axis_number, mapped
from erf.theory.operators.registry import Arguments, rule
from erf.theory.operators.state import State, dims_of_map, is_spatial, plain, settled

_POOLS = tuple(f"{kind}_pool{n}d" for kind in ("avg", "max") for n in (1, 2, 3))


@rule("convolution")
def _convolution(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    _, weight, _, stride, padding, dilation, transposed = args[:7]
    values = (tuple(weight.shape[2:]), stride, padding, dilation)
    return windows(name, args, state, output, values, transposed=transposed)


@rule(*_POOLS, *(f"{pool}_with_indices" for pool in _POOLS))
def _pool(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    kernel, stride, padding, dilation = (*args[1:5], *(None,) * 4)[:4]
    if name.startswith("avg"):
        dilation = None  # its fourth argument is ceil_mode
    return windows(name, args, state, output, (kernel, stride or kernel, padding or 0, dilation or 1))


@rule("pixel_shuffle", "pixel_unshuffle")
def _shuffle(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    factor = args[1]
    return windows(name, args, state, output, (factor, factor, 0, 1), transposed=name == "pixel_shuffle")


@rule("unfold")
def _unfold(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    """Windows along a dimension; their elements form a new last dimension."""
    place, kernel, stride = axis_number(args[1], args[0].ndim), args[2], args[3]
    state = settled(state)
    if state.dims is None:
        return state
    state = windowed(name, state, place, (kernel, stride, 0, 1), output.shape[place])
    if state.dims is None:
        return state
    return replace(state, dims=(*state.dims, plain(kernel)))


def windows(name: str, args: Arguments, state: State, output: Tensor, values: Sequence[Any], **options: Any) -> State:
    """Sliding window over the last dimensions, which may contain axes; `values`: kernel, stride, padding, dilation."""
    if not state.spatial:
        return replace(state, dims=tuple(plain(size) for size in output.shape))
    state = settled(state)
    sliding = args[0].ndim - (1 if options.pop("mixes", False) else 2)
    kernels = [_each(value, sliding) for value in values]
    places = range(output.ndim - sliding, output.ndim)
    if state.dims is None or any(is_spatial(dim) for dim in state.dims[1 : output.ndim - sliding]):
        return state.everywhere(name, None)
    for place, window in zip(places, zip(*kernels, strict=True), strict=True):
        if window == (1, 1, 0, 1):
            continue
        state = windowed(name, state, place, window, output.shape[place], **options)
        if state.dims is None:
            return state
    assert state.dims is not None
    dims = (dim if is_spatial(dim) else plain(size) for dim, size in zip(state.dims, output.shape, strict=True))
    return replace(state, dims=tuple(dims))


def windowed(name: str, state: State, place: int, window: Sequence[int], size: int, transposed: bool = False) -> State:
    """State after a window (kernel, stride, padding, dilation) along one dimension; `size` is its new size."""
    assert state.dims is not None
    found = along_axis(state, place)
    if found is None:
        return state.everywhere(name, None) if is_spatial(state.dims[place]) else state
    step = sampling.transposed if transposed else sampling.window
    kernel, stride, padding, dilation = window
    return mapped(state, place, step(found[0], kernel, stride, padding, dilation, size), size)


def slide(state: State, window: tuple[int, int, int, int], output: Tensor) -> State:
    """State after a sliding window over a map, for modules whose operators hide the window.

    Args:
        state: State of the map.
        window: (kernel, stride, padding, dilation), the same along every axis.
        output: The resulting map (N, C, *axes).

    Returns:
        The state of the output.
    """
    count = len(state.grid)
    grid = tuple(output.shape[-count:])
    axes = tuple(sampling.window(axis, *window, size) for axis, size in zip(state.field.axes, grid, strict=True))
    return State(replace(state.field, axes=axes), grid, dims_of_map(output.shape))


def _each(value: Any, count: int) -> list[int]:
    values = list(value) if isinstance(value, Iterable) else [value]
    return values * count if len(values) == 1 else values
