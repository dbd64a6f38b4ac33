"""Rules of operators that reorder or repeat positions: flips, shifts, rotations, indexing."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from erf.theory.operators.axes import along_axis, axis_number, picked, replaced
from erf.theory.operators.registry import Arguments, rule
from erf.theory.operators.state import State, broadcast, is_spatial, plain, settled
from erf.theory.operators.views import permute


@rule("flip", "roll")
def _reorder(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    """Permutation of the positions of some dimensions, by flipping or rolling."""
    places = args[1] if name == "flip" else args[2] if len(args) > 2 else []
    shifts = [None] * len(places) if name == "flip" else args[1]
    state = settled(state)
    if state.dims is None or not places:
        return state.everywhere(name, None) if state.spatial else state
    for place, shift in zip((axis_number(place, output.ndim) for place in places), shifts, strict=True):
        found, size = along_axis(state, place), output.shape[place]
        if found is not None:
            order = range(size - 1, -1, -1) if shift is None else [(unit - shift) % size for unit in range(size)]
            state = picked(state, place, order)
        elif state.dims is None or is_spatial(state.dims[place]):
            return state.everywhere(name, None)
    return state


@rule("rot90")
def _rotate(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    """Rotation by quarter turns in the plane of two dimensions."""
    turns, (one, two) = (args[1] if len(args) > 1 else 1) % 4, args[2] if len(args) > 2 else (0, 1)
    if turns == 2:
        return _reorder("flip", (args[0], (one, two)), {}, state, output)
    if turns == 0:
        return state
    turned = permute("transpose", (args[0], one, two), {}, settled(state), output)
    return _reorder("flip", (output, (one if turns == 1 else two,)), {}, turned, output)


@rule("gather", "index", "index_select")
def _index(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    """Positions selected by index."""
    indices = {place: index for place, index in enumerate(args[1]) if index is not None} if name == "index" else {
        axis_number(args[1], args[0].ndim): args[2]
    }  # fmt: skip
    (place, index), *others = indices.items()
    state = settled(state)
    if state.dims is None or others or (index.ndim != 1 and name != "gather"):
        return state.everywhere(name, None) if state.spatial else replace(state, dims=None)
    if name == "gather":
        changed = {place} | {at for at, size in enumerate(output.shape) if size != args[0].shape[at]}
        if any(is_spatial(state.dims[at]) for at in changed):
            return state.everywhere(name, None)
    elif (found := along_axis(state, place)) is not None:
        return picked(state, place, [int(unit) % found[1] for unit in index.tolist()])
    elif is_spatial(state.dims[place]):
        return state.everywhere(name, None)
    return replace(state, dims=replaced(state.dims, place, plain(output.shape[place])))


@rule("repeat")
def _repeat(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    wide = broadcast(settled(state), output.ndim)
    if wide.dims is None:
        return wide
    for place, times in enumerate(args[1]):
        found = along_axis(wide, place)
        if found is not None:
            wide = picked(wide, place, [*range(found[1])] * times)
        elif wide.dims is None or (is_spatial(wide.dims[place]) and times != 1):
            return state.everywhere(name, None)
    assert wide.dims is not None
    dims = (dim if is_spatial(dim) else plain(size) for dim, size in zip(wide.dims, output.shape, strict=True))
    return replace(wide, dims=tuple(dims))
