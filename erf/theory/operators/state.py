"""Receptive-field state of a tensor: the field of its positions, and the factors of its dimensions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from erf.network.layers import Layout
from erf.theory.axis import AxisField
from erf.theory.fields import ReceptiveField
from erf.theory.sampling import transposed, window


@dataclass(frozen=True)
class Factor:
    """Factor of a dimension: an axis of the map, or another such as batch or channels (`axis` None)."""

    size: int
    axis: int | None = None


@dataclass(frozen=True)
class Tokens:
    """A dimension with the whole flattened map in order, and other tokens before and after it."""

    size: int
    before: int
    after: int


Dim = tuple[Factor | Tokens, ...]
Dims = tuple[Dim, ...]


@dataclass(frozen=True)
class State:
    """Receptive-field state: the part of the input on which each position of a tensor depends."""

    field: ReceptiveField
    grid: tuple[int, ...]
    """Size of the map to which the positions belong."""
    dims: Dims | None
    """Factors of the tensor's dimensions; None if their order was lost, and the field is infinite."""

    @classmethod
    def source(cls, shape: Sequence[int]) -> "State":
        """State of the input itself, of shape (N, C, *axes)."""
        grid = tuple(shape[2:])
        axes = tuple(AxisField() for _ in grid)
        return cls(ReceptiveField(axes), grid, dims_of_map(shape))

    @property
    def spatial(self) -> bool:
        """Whether positions may differ in their receptive field."""
        return self.dims is None or any(is_spatial(dim) for dim in self.dims)

    def everywhere(self, name: str, dims: Dims | None) -> "State":
        """State after an operator that may connect all positions; a value that is already global is unchanged."""
        is_global = not self.spatial and self.field.infinite
        return State(self.field if is_global else self.field.unbounded(name), self.grid, dims)

    def layout(self, shape: Sequence[int]) -> Layout | None:
        """Layout by which a tensor is read as a map.

        Args:
            shape: Shape of the tensor with this state.

        Returns:
            The dimensions of the map's axes or its tokens; None if the tensor is not a map.
        """
        state = settled(self)
        if state.dims is None:
            return None
        places: dict[int, int] = {}
        for place, dim in enumerate(state.dims):
            if len(dim) == 1 and isinstance(dim[0], Tokens):
                return Layout((place,), state.grid, dim[0].before)
            axes = [factor.axis for factor in dim if isinstance(factor, Factor)]
            if axes == [*range(len(state.grid))] and len(axes) > 1:
                return Layout((place,), state.grid, 0)
            if len(axes) == 1 and axes[0] is not None:
                places[axes[0]] = place
        # An axis of size 1 may no longer have a dimension of its own.
        if sorted(places) != [*range(len(state.grid))] or any(
            shape[place] != state.grid[axis] for axis, place in places.items()
        ):
            return None
        return Layout(tuple(places[axis] for axis in range(len(state.grid))), state.grid)


def axis_of(dim: Dim) -> int | None:
    """Axis that a dimension consists of, None if it has other factors or no axis."""
    factor = dim[0] if len(dim) == 1 else None
    return factor.axis if isinstance(factor, Factor) else None


def is_spatial(dim: Dim) -> bool:
    """Whether a dimension contains an axis of the map or tokens."""
    return any(isinstance(factor, Tokens) or factor.axis is not None for factor in dim)


def plain(size: int) -> Dim:
    """Factors of a dimension without positions of the map; none for size 1."""
    return (Factor(size),) if size != 1 else ()


def dims_of_map(shape: Sequence[int]) -> Dims:
    """Factors of the dimensions of a map (N, C, *axes)."""
    axes = tuple((Factor(size, axis),) for axis, size in enumerate(shape[2:]))
    return (plain(shape[0]), plain(shape[1]), *axes)


def settled(state: State) -> State:
    """Merge axes that were cut into windows and reassembled, so that each has a dimension of its own.

    Args:
        state: State of a tensor.

    Returns:
        The state with merged axes; a dimension with other factors stays as it is.
    """
    if state.dims is None:
        return state
    dims = list(state.dims)
    for place, dim in enumerate(dims):
        if len(dim) > 1 and isinstance(dim[0], Factor) and dim[0].axis is not None:
            rest = dim[1:]
            if all(isinstance(factor, Factor) and factor.axis is None for factor in rest):
                axis, fine = dim[0].axis, math.prod(factor.size for factor in rest)
                spread = transposed(state.field.axes[axis], fine, fine, 0, 1, dim[0].size * fine)
                size = dim[0].size * fine
                grid = (*state.grid[:axis], size, *state.grid[axis + 1 :])
                dims[place] = (Factor(size, axis),)
                state = State(state.field.on(axis, spread), grid, tuple(dims))
    return state


def regroup(state: State, shape: Sequence[int]) -> State:
    """State after a view of another shape: factors are consumed in order, and cut where a dimension ends within them.

    An axis that is cut is replaced by that of the coarser pieces, each of which has the union of its fields.

    Args:
        state: State of the tensor before.
        shape: New shape.

    Returns:
        The new state; infinite, with unknown dimensions, if the shape does not divide the factors.
    """
    if state.dims is None:
        return state
    if 0 in shape:
        return state.everywhere("view", None)
    pending = [factor for dim in state.dims for factor in dim]
    field, grid, dims = state.field, list(state.grid), []
    for size in shape:
        taken: list[Factor | Tokens] = []
        product = 1
        while pending and (product < size or pending[0].size == 1):
            factor, need = pending[0], size // product
            if factor.size <= need and need % factor.size == 0:
                taken.append(pending.pop(0))
                product *= factor.size
            elif isinstance(factor, Factor) and need > 1 and factor.size % need == 0:
                inner = factor.size // need
                if factor.axis is not None:
                    coarse = window(field.axes[factor.axis], inner, inner, 0, 1, need)
                    field = field.on(factor.axis, coarse)
                    grid[factor.axis] = need
                taken.append(Factor(need, factor.axis))
                pending[0] = Factor(inner)
                product *= need
            else:
                return state.everywhere("view", None)
        if product != size:
            return state.everywhere("view", None)
        dims.append(tuple(taken))
    return State(field, tuple(grid), tuple(dims))


def joined(name: str, state: Sequence[State], shape: Sequence[int]) -> State:
    """State of values combined elementwise with broadcasting.

    Args:
        name: Operator, recorded as the cause where the maps do not match.
        state: States of the operands.
        shape: Shape of the result.

    Returns:
        The union of the fields if the operands' axes agree; else an infinite field.
    """
    wide = [broadcast(_settled_if_unlike(each, state), len(shape)) for each in state]
    main = max(wide, key=lambda each: (each.spatial and each.dims is not None, math.prod(each.grid)))
    field = main.field
    for each in wide:
        if each is main:
            continue
        if each.grid == main.grid and agree(each.dims, main.dims):
            field = field.union(each.field, main.grid)
        elif each.field.infinite and not (each.spatial and each.dims):
            field = field.unbounded(*each.field.unbounded_by)
        else:
            field = field.unbounded(*each.field.unbounded_by, name)
    return State(field, main.grid, main.dims)


def _settled_if_unlike(state: State, others: Sequence[State]) -> State:
    """Reassemble a map that was cut into windows if another operand has a different grid."""
    if state.dims is None or all(other.grid == state.grid for other in others):
        return state
    return settled(state)


def broadcast(state: State, dimensions: int) -> State:
    """Prepend dimensions of size 1, up to a number of dimensions."""
    if state.dims is None:
        return state
    return replace(state, dims=((),) * (dimensions - len(state.dims)) + state.dims)


def agree(one: Dims | None, two: Dims | None) -> bool:
    """Whether both have their axes in the same dimensions; False if either is unknown."""
    if one is None or two is None:
        return False
    return all(a == b or not (is_spatial(a) or is_spatial(b)) for a, b in zip(one, two, strict=True))
