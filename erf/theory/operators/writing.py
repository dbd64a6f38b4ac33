"""Receptive fields after writing into a part of a tensor through a view."""

from dataclasses import replace

from torch import Tensor

from erf.theory.axis import AxisField
from erf.theory.branches import written_over
from erf.theory.operators.state import Dim, Factor, State, agree, axis_of, broadcast, is_spatial, plain, settled
from erf.theory.sampling import transposed, window

Along = tuple[int, range]
"""A dimension of the view, and the positions of its elements in the whole tensor."""


def written_into(whole: Tensor, before: State | None, part: Tensor, state: State) -> State | None:
    """Receptive-field state of a tensor after an in-place write to a view of it.

    The previous state is kept in the union: other channels may not have been overwritten.

    Args:
        whole: The tensor.
        before: Its state before the write; None if it did not depend on the input.
        part: The view that was written.
        state: State of the written values.

    Returns:
        The new state of `whole`, or None if it cannot be determined.
    """
    state = broadcast(settled(state), part.ndim)
    before = None if before is None else settled(before)
    places = _places(whole, part, state)
    if state.dims is None or places is None or (before is not None and not before.dims):
        return None
    dims: list[Dim] = [plain(size) for size in whole.shape]
    fields, grid = dict(enumerate(state.field.axes)), list(state.grid)
    for place, (source, units) in places.items():
        axis, length = axis_of(state.dims[source]), whole.shape[place]
        if axis is None and is_spatial(state.dims[source]):
            return None
        if axis is not None:
            if before is not None and before.grid[axis] != length:
                return None
            own = None if before is None else before.field.axes[axis]
            fields[axis], grid[axis] = _merged(own, fields[axis], units, length), length
            dims[place] = (Factor(length, axis),)
    spatial = sorted(axis for dim in dims if (axis := axis_of(dim)) is not None)
    field = replace(state.field, axes=tuple(fields[axis] for axis in range(len(grid))))
    if spatial != [*range(len(grid))] or (before is not None and not agree(before.dims, tuple(dims))):
        return None
    return State(field if before is None else field.union(before.field, grid), tuple(grid), tuple(dims))


def _merged(before: AxisField | None, written: AxisField, units: range, length: int) -> AxisField:
    """Field along an axis after some units were written; empty positions continue the written ones, like padding."""
    if before is not None:
        return written_over(before, written, units, length)
    if units.step == 1:
        return window(written, 1, 1, units.start, 1, length)
    return transposed(written, units.step, units.step, -units.start, 1, length)


def _places(whole: Tensor, part: Tensor, state: State) -> dict[int, Along] | None:
    """Map dimensions of the whole tensor to those of the view along them; None if the view is not a slice."""
    rest = int(part.storage_offset() - whole.storage_offset())
    starts: dict[int, int] = {}
    strides = whole.stride()
    for place in sorted(range(whole.ndim), key=strides.__getitem__, reverse=True):
        if whole.shape[place] > 1:
            if strides[place] == 0:
                return None
            starts[place], rest = divmod(rest, strides[place])
    if rest or any(start >= whole.shape[place] for place, start in starts.items()):
        return None
    found: dict[int, Along] = {}
    # Dimensions of size 1 come last: their stride may match several.
    for source in sorted(range(part.ndim), key=lambda source: part.shape[source] == 1):
        size, stride = part.shape[source], part.stride(source)
        if size == 1 and not (state.dims and is_spatial(state.dims[source])):
            continue
        free = [place for place in starts if place not in found and stride % strides[place] == 0]
        if not free or stride == 0:
            return None
        place = max(free, key=strides.__getitem__)
        step = stride // strides[place]
        units = range(starts[place], starts[place] + step * size, step)
        if units[-1] >= whole.shape[place]:
            return None
        found[place] = (source, units)
    return found
