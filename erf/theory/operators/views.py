"""Rules of views, copies, permutations and selections."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from erf.theory.operators.axes import along_axis, axis_number, mapped, picked, replaced, without
from erf.theory.operators.registry import Arguments, rule
from erf.theory.operators.state import (
    Dim,
    Factor,
    State,
    Tokens,
    axis_of,
    broadcast,
    is_spatial,
    plain,
    regroup,
    settled,
)
from erf.theory.sampling import window


@rule("_to_copy", "alias", "clone", "contiguous", "detach", "dropout", "lift_fresh", "native_dropout")
def _keep(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    return state


@rule("_reshape_alias", "_reshape_copy", "_unsafe_view", "flatten", "reshape", "unflatten", "view")
def _view(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    return regroup(state, output.shape)


@rule("numpy_T", "permute", "swapaxes", "t", "transpose")
def permute(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    if state.dims is None:
        return state
    count = len(state.dims)
    order = list(range(count))
    if name == "permute":
        order = [axis_number(place, count) for place in args[1]]
    elif count > 1:
        one, two = (0, 1) if name in ("t", "numpy_T") else (axis_number(args[1], count), axis_number(args[2], count))
        order[one], order[two] = order[two], order[one]
    return replace(state, dims=tuple(state.dims[place] for place in order))


@rule("unsqueeze")
def unsqueeze(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    if state.dims is None:
        return state
    place = axis_number(args[1], output.ndim)
    return replace(state, dims=(*state.dims[:place], (), *state.dims[place:]))


@rule("squeeze")
def _squeeze(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    if state.dims is None:
        return state
    count = len(state.dims)
    asked = range(count) if len(args) < 2 else [args[1]] if isinstance(args[1], int) else args[1]
    gone = {axis_number(place, count) for place in asked if args[0].shape[place] == 1}
    return replace(state, dims=tuple(dim for place, dim in enumerate(state.dims) if place not in gone))


@rule("expand")
def _expand(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    wide = broadcast(state, output.ndim)
    if wide.dims is None:
        return wide
    for place, (dim, size) in enumerate(zip(wide.dims, output.shape, strict=True)):
        axis = axis_of(dim)
        if axis is not None and dim[0].size == 1 < size:
            wide = picked(wide, place, [0] * size)
    assert wide.dims is not None
    dims = tuple(dim or plain(size) for dim, size in zip(wide.dims, output.shape, strict=True))
    return replace(wide, dims=dims)


@rule("select", "unbind")
def _select(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    """One position of a dimension, which is removed."""
    place = axis_number(args[1] if len(args) > 1 else 0, args[0].ndim)
    if state.dims is None or any(
        isinstance(factor, Factor) and factor.axis is not None for factor in state.dims[place]
    ):
        return state.everywhere(name, None)
    if is_spatial(state.dims[place]):
        return state.everywhere(name, without(state.dims, [place]))
    return replace(state, dims=without(state.dims, [place]))


@rule("narrow", "slice")
def _slice(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    place = axis_number(args[1] if len(args) > 1 else 0, args[0].ndim)
    length = args[0].shape[place]
    if state.dims is None:
        return state.everywhere(name, None) if output.shape != args[0].shape else state
    start, stop, step = (*args[2:5], *(None,) * 3)[:3]
    first, last, every = slice(start, stop, step or 1).indices(length)
    dim = state.dims[place]
    if len(dim) == 1 and isinstance(dim[0], Tokens):
        tokens = dim[0]
        if every == 1 and first <= tokens.before and last >= length - tokens.after:
            rest = Tokens(output.shape[place], tokens.before - first, tokens.after - (length - last))
            return replace(state, dims=replaced(state.dims, place, _unpacked(rest, state.grid)))
        others = last <= tokens.before or first >= length - tokens.after
        kept = replaced(state.dims, place, plain(output.shape[place]))
        return state.everywhere(name, kept if others else None)
    if not is_spatial(dim):
        return replace(state, dims=replaced(state.dims, place, plain(output.shape[place])))
    whole = settled(state)
    found = along_axis(whole, place)
    if found is None:
        return state.everywhere(name, None)
    count = output.shape[place]
    return mapped(whole, place, window(found[0], 1, every, -first, 1, count), count)


def _unpacked(tokens: Tokens, grid: tuple[int, ...]) -> Dim:
    """Axes of the map as factors, if no other tokens are left."""
    if tokens.before or tokens.after:
        return (tokens,)
    return tuple(Factor(size, axis) for axis, size in enumerate(grid))


@rule("chunk", "split", "split_with_sizes")
def _split(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    """Pieces of a dimension, as views."""
    place = axis_number(args[2] if len(args) > 2 else 0, output.ndim)
    whole = settled(state)
    if whole.dims is None:
        return whole
    if not is_spatial(whole.dims[place]):
        return replace(whole, dims=replaced(whole.dims, place, plain(output.shape[place])))
    found, step = along_axis(whole, place), args[0].stride(place)
    if found is None or step == 0:
        return state.everywhere(name, None)
    first = (output.storage_offset() - args[0].storage_offset()) // step
    return picked(whole, place, range(first, first + output.shape[place]))


@rule("view_as_complex", "view_as_real")
def _real(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    """Complex numbers as real and imaginary parts in a last dimension, or the reverse."""
    if state.dims is None:
        return state
    return replace(state, dims=(*state.dims, plain(2)) if name == "view_as_real" else state.dims[:-1])
