"""Rules of operators with several operands: products, attention, concatenation."""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

from torch import Tensor

from erf.theory.branches import concatenated
from erf.theory.operators.axes import along_axis, axis_number, replaced
from erf.theory.operators.registry import Arguments, Find, junction
from erf.theory.operators.state import Factor, State, Tokens, agree, axis_of, is_spatial, joined, plain, settled
from erf.theory.operators.views import unsqueeze


@junction("copy")
def _copy(name: str, args: Arguments, find: Find, output: Tensor) -> State:
    """Replacement of the first argument by the second, broadcast."""
    source = find(args[1]) or find(args[0])
    assert source is not None
    return joined(name, [source], output.shape)


@junction("addmm", "baddbmm", "bmm", "mm")
def _product(name: str, args: Arguments, found: Find, output: Tensor) -> State:
    """Matrix product of (…, n, k) and (…, k, m): local if no sum runs over positions and no two positions combine."""
    left, right = args[1:3] if name in ("addmm", "baddbmm") else args[:2]
    one, two = found(left), found(right)
    added = found(args[0]) if left is not args[0] else None
    if added is not None or any(each is not None and each.dims is None for each in (one, two)):
        return _operands(one, two, name).everywhere(name, None)
    ours = one.dims if one and one.dims else tuple(plain(size) for size in left.shape)
    theirs = two.dims if two and two.dims else tuple(plain(size) for size in right.shape)
    rows, columns = ours[-2], theirs[-1]
    batch = ours[:-2] if one is not None else theirs[:-2]
    meet = is_spatial(rows) and is_spatial(columns)
    summed = is_spatial(ours[-1]) or is_spatial(theirs[-2])
    apart = one is not None and two is not None and ours[:-2] != theirs[:-2]
    dims = (*batch, rows, plain(output.shape[-1]) if meet else columns)
    is_left = any(is_spatial(dim) for dim in ours[:-1]) and one is not None
    state = _operands(one, two, name) if is_left else _operands(two, one, name)
    return state.everywhere(name, dims) if meet or summed or apart else replace(state, dims=dims)


def _operands(main: State | None, other: State | None, name: str) -> State:
    """Union of the states of two factors, on the grid of the first."""
    if main is None or other is None:
        state = main or other
        assert state is not None
        return state
    same = other.grid == main.grid
    field = main.field.union(other.field, main.grid) if same else main.field.unbounded(*other.field.unbounded_by, name)
    return replace(main, field=field)


def attention(name: str, args: Arguments, found: Find, output: Tensor) -> State:
    """Fused attention of queries, keys and values (N, heads, positions, channels)."""
    operands = [each for each in map(found, args[:3]) if each is not None]
    query = found(args[0])
    state = reduce(lambda one, two: _operands(one, two, "attention"), operands)
    if query is None or query.dims is None or output.ndim < len(query.dims):
        return state.everywhere("attention", None)
    alone = all(each.dims and not is_spatial(each.dims[-2]) and each.dims[:-2] == query.dims[:-2] for each in operands)
    dims = (*query.dims[:-1], plain(output.shape[-1]))
    return replace(state, dims=dims) if alone else state.everywhere("attention", dims)


@junction("cat", "stack")
def _concatenate(name: str, args: Arguments, found: Find, output: Tensor) -> State:
    parts = list(args[0])
    place = axis_number(args[1] if len(args) > 1 else 0, output.ndim)
    own = [found(part) for part in parts]
    state = [each for each in own if each is not None]
    if name == "stack":
        state = [unsqueeze(name, (None, place), {}, each, output) for each in state]
        return _concatenated(name, state, output.shape, place)
    if any(each.dims is None for each in state):
        return joined(name, state, output.shape).everywhere(name, None)
    if not any(each.dims and is_spatial(each.dims[place]) for each in state):
        return _concatenated(name, state, output.shape, place)
    sizes = [part.shape[place] for part in parts]
    whole = [None if each is None else settled(each) for each in own]
    if all(along_axis(each, place) is not None for each in whole if each is not None):
        return _end_to_end(name, whole, sizes, place)
    return _with_tokens(name, own, sizes, place)


def _end_to_end(name: str, parts: Sequence[State | None], sizes: Sequence[int], place: int) -> State:
    """Concatenation of parts along an axis of the map."""
    known = [each for each in parts if each is not None]
    main = known[0]
    assert main.dims is not None
    axis = axis_of(main.dims[place])
    grid = tuple(sum(sizes) if number == axis else size for number, size in enumerate(main.grid))
    dims = replaced(main.dims, place, (Factor(sum(sizes), axis),))
    like = [replaced(each.dims or (), place, dims[place]) for each in known]
    if axis is None or not all(agree(each, dims) and axis_of(each[place]) == axis for each in like):
        return replace(main, field=main.field.unbounded(name), dims=None)
    pairs = zip(parts, sizes, strict=True)
    joint = concatenated([(None if each is None else each.field.axes[axis], size) for each, size in pairs])
    fields = [each.field.on(axis, joint) for each in known]
    return State(reduce(lambda one, two: one.union(two, grid), fields), grid, dims)


def _concatenated(name: str, state: Sequence[State], shape: Sequence[int], place: int) -> State:
    both = joined(name, state, shape)
    return both if both.dims is None else replace(both, dims=replaced(both.dims, place, plain(shape[place])))


def _with_tokens(name: str, own: Sequence[State | None], sizes: Sequence[int], place: int) -> State:
    """Concatenation of a flattened map with tokens outside it, such as a class token, before or after."""
    maps = [index for index, each in enumerate(own) if each and each.dims and is_spatial(each.dims[place])]
    state, others = own[maps[0]], [each for index, each in enumerate(own) if each and index not in maps]
    assert state is not None
    assert state.dims is not None
    dim = state.dims[place]
    before, after = sum(sizes[: maps[0]]), sum(sizes[maps[0] + 1 :])
    if len(dim) == 1 and isinstance(dim[0], Tokens):
        before, after = before + dim[0].before, after + dim[0].after
    elif [getattr(factor, "axis", None) for factor in dim] != [*range(len(state.grid))]:
        return state.everywhere(name, None)
    if len(maps) > 1:
        return state.everywhere(name, None)
    for other in others:
        local = () if other.field.infinite and not other.spatial else (name,)
        state = replace(state, field=state.field.unbounded(*other.field.unbounded_by, *local))
    return replace(state, dims=replaced(state.dims or (), place, (Tokens(sum(sizes), before, after),)))
