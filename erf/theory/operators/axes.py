"""Changes along one dimension of a receptive-field state."""

from collections.abc import Iterable, Sequence

from erf.theory.axis import AxisField
from erf.theory.operators.state import Dim, Dims, Factor, State, axis_of
from erf.theory.sampling import selected


def mapped(state: State, place: int, field: AxisField, size: int) -> State:
    """Replace the field and the size of the axis that a dimension consists of."""
    assert state.dims is not None
    axis = axis_of(state.dims[place])
    assert axis is not None
    grid = (*state.grid[:axis], size, *state.grid[axis + 1 :])
    return State(state.field.on(axis, field), grid, replaced(state.dims, place, (Factor(size, axis),)))


def along_axis(state: State, place: int) -> tuple[AxisField, int] | None:
    """Field and size of the axis that a dimension consists of; None if it is not a single axis."""
    axis = None if state.dims is None else axis_of(state.dims[place])
    return None if axis is None else (state.field.axes[axis], state.grid[axis])


def picked(state: State, place: int, units: Sequence[int]) -> State:
    """State after indexing an axis with a list of units."""
    found = along_axis(state, place)
    assert found is not None
    return mapped(state, place, selected(found[0], units, found[1]), len(units))


def replaced(dims: Dims, place: int, dim: Dim) -> Dims:
    """Return dimensions with another one at a place."""
    return (*dims[:place], dim, *dims[place + 1 :])


def without(dims: Dims | None, places: Iterable[int]) -> Dims | None:
    """Return dimensions without those at some places; None if they are unknown."""
    gone = set(places)
    return None if dims is None else tuple(dim for place, dim in enumerate(dims) if place not in gone)


def axis_number(place: int, dimensions: int) -> int:
    """Return a dimension counted from the front; negative numbers count from the end."""
    return place % dimensions
