"""Rules of the operators: receptive-field state of an output, from the arguments and their states."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from erf.theory.axis import AxisField
from erf.theory.operators.seen import (
    Dim,
    Dims,
    Factor,
    Seen,
    Tokens,
    agree,
    axis_of,
    broadcast,
    dims_of_map,
    is_spatial,
    joined,
    plain,
    regroup,
    settled,
)

Arguments = Sequence[Any]
Find = Callable[[Any], Seen | None]
Rule = Callable[[str, Arguments, Mapping[str, Any], Seen, Tensor], Seen]
"""Rule of an operator with one argument that depends on the input."""
Junction = Callable[[str, Arguments, Find, Tensor], Seen]
"""Rule of an operator whose arguments have different roles."""


def _axis(place: int, dimensions: int) -> int:
    return place % dimensions


def _keep(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    return seen


def _view(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    return regroup(seen, output.shape)


def _permute(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    if seen.dims is None:
        return seen
    count = len(seen.dims)
    order = list(range(count))
    if name == "permute":
        order = [_axis(place, count) for place in args[1]]
    elif count > 1:
        one, two = (0, 1) if name in ("t", "numpy_T") else (_axis(args[1], count), _axis(args[2], count))
        order[one], order[two] = order[two], order[one]
    return replace(seen, dims=tuple(seen.dims[place] for place in order))


def _unsqueeze(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    if seen.dims is None:
        return seen
    place = _axis(args[1], output.ndim)
    return replace(seen, dims=(*seen.dims[:place], (), *seen.dims[place:]))


def _squeeze(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    if seen.dims is None:
        return seen
    count = len(seen.dims)
    asked = range(count) if len(args) < 2 else [args[1]] if isinstance(args[1], int) else args[1]
    gone = {_axis(place, count) for place in asked if args[0].shape[place] == 1}
    return replace(seen, dims=tuple(dim for place, dim in enumerate(seen.dims) if place not in gone))


def _expand(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    wide = broadcast(seen, output.ndim)
    if wide.dims is None:
        return wide
    for place, (dim, size) in enumerate(zip(wide.dims, output.shape, strict=True)):
        axis = axis_of(dim)
        if axis is not None and dim[0].size == 1 < size:
            wide = _picked(wide, place, [0] * size)
    assert wide.dims is not None
    dims = tuple(dim or plain(size) for dim, size in zip(wide.dims, output.shape, strict=True))
    return replace(wide, dims=dims)


def _mapped(seen: Seen, place: int, field: AxisField, size: int) -> Seen:
    """Replace the field and the size of the axis that a dimension consists of."""
    assert seen.dims is not None
    axis = axis_of(seen.dims[place])
    assert axis is not None
    grid = (*seen.grid[:axis], size, *seen.grid[axis + 1 :])
    return Seen(seen.field.on(axis, field), grid, _replaced(seen.dims, place, (Factor(size, axis),)))


def _along_axis(seen: Seen, place: int) -> tuple[AxisField, int] | None:
    """Field and size of the axis that a dimension consists of; None if it is not a single axis."""
    axis = None if seen.dims is None else axis_of(seen.dims[place])
    return None if axis is None else (seen.field.axes[axis], seen.grid[axis])


def _picked(seen: Seen, place: int, units: Sequence[int]) -> Seen:
    """State after indexing an axis with a list of units."""
    found = _along_axis(seen, place)
    assert found is not None
    return _mapped(seen, place, found[0].picked(units, found[1]), len(units))


def _select(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    """One position of a dimension, which is removed."""
    place = _axis(args[1] if len(args) > 1 else 0, args[0].ndim)
    if seen.dims is None or any(isinstance(factor, Factor) and factor.axis is not None for factor in seen.dims[place]):
        return seen.everywhere(name, None)
    if is_spatial(seen.dims[place]):
        return seen.everywhere(name, _without(seen.dims, [place]))
    return replace(seen, dims=_without(seen.dims, [place]))


def _without(dims: Dims | None, places: Iterable[int]) -> Dims | None:
    gone = set(places)
    return None if dims is None else tuple(dim for place, dim in enumerate(dims) if place not in gone)


def _slice(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    place = _axis(args[1] if len(args) > 1 else 0, args[0].ndim)
    length = args[0].shape[place]
    if seen.dims is None:
        return seen.everywhere(name, None) if output.shape != args[0].shape else seen
    start, stop, step = (*args[2:5], *(None,) * 3)[:3]
    first, last, every = slice(start, stop, step or 1).indices(length)
    dim = seen.dims[place]
    if len(dim) == 1 and isinstance(dim[0], Tokens):
        tokens = dim[0]
        if every == 1 and first <= tokens.before and last >= length - tokens.after:
            rest = Tokens(output.shape[place], tokens.before - first, tokens.after - (length - last))
            return replace(seen, dims=_replaced(seen.dims, place, _unpacked(rest, seen.grid)))
        others = last <= tokens.before or first >= length - tokens.after
        kept = _replaced(seen.dims, place, plain(output.shape[place]))
        return seen.everywhere(name, kept if others else None)
    if not is_spatial(dim):
        return replace(seen, dims=_replaced(seen.dims, place, plain(output.shape[place])))
    whole = settled(seen)
    found = _along_axis(whole, place)
    if found is None:
        return seen.everywhere(name, None)
    count = output.shape[place]
    return _mapped(whole, place, found[0].window(1, every, -first, 1, count), count)


def _unpacked(tokens: Tokens, grid: tuple[int, ...]) -> Dim:
    """Axes of the map as factors, if no other tokens are left."""
    if tokens.before or tokens.after:
        return (tokens,)
    return tuple(Factor(size, axis) for axis, size in enumerate(grid))


def _replaced(dims: Dims, place: int, dim: Dim) -> Dims:
    return (*dims[:place], dim, *dims[place + 1 :])


def _windows(name: str, args: Arguments, seen: Seen, output: Tensor, values: Sequence[Any], **options: Any) -> Seen:
    """Sliding window over the last dimensions, which may contain axes; `values`: kernel, stride, padding, dilation."""
    if not seen.spatial:
        return replace(seen, dims=tuple(plain(size) for size in output.shape))
    seen = settled(seen)
    sliding = args[0].ndim - (1 if options.pop("mixes", False) else 2)
    kernels = [_each(value, sliding) for value in values]
    places = range(output.ndim - sliding, output.ndim)
    if seen.dims is None or any(is_spatial(dim) for dim in seen.dims[1 : output.ndim - sliding]):
        return seen.everywhere(name, None)
    for place, window in zip(places, zip(*kernels, strict=True), strict=True):
        if window == (1, 1, 0, 1):
            continue
        seen = _windowed(name, seen, place, window, output.shape[place], **options)
        if seen.dims is None:
            return seen
    assert seen.dims is not None
    dims = (dim if is_spatial(dim) else plain(size) for dim, size in zip(seen.dims, output.shape, strict=True))
    return replace(seen, dims=tuple(dims))


def _windowed(name: str, seen: Seen, place: int, window: Sequence[int], size: int, transposed: bool = False) -> Seen:
    """State after a window (kernel, stride, padding, dilation) along one dimension; `size` is its new size."""
    assert seen.dims is not None
    found = _along_axis(seen, place)
    if found is None:
        return seen.everywhere(name, None) if is_spatial(seen.dims[place]) else seen
    step = AxisField.transposed if transposed else AxisField.window
    kernel, stride, padding, dilation = window
    return _mapped(seen, place, step(found[0], kernel, stride, padding, dilation, size), size)


def slide(seen: Seen, window: tuple[int, int, int, int], output: Tensor) -> Seen:
    """State after a sliding window over a map, for modules whose operators hide the window.

    Args:
        seen: State of the map.
        window: (kernel, stride, padding, dilation), the same along every axis.
        output: The resulting map (N, C, *axes).

    Returns:
        The state of the output.
    """
    count = len(seen.grid)
    grid = tuple(output.shape[-count:])
    axes = tuple(axis.window(*window, size) for axis, size in zip(seen.field.axes, grid, strict=True))
    return Seen(replace(seen.field, axes=axes), grid, dims_of_map(output.shape))


def _each(value: Any, count: int) -> list[int]:
    values = list(value) if isinstance(value, Iterable) else [value]
    return values * count if len(values) == 1 else values


def _convolution(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    _, weight, _, stride, padding, dilation, transposed = args[:7]
    values = (tuple(weight.shape[2:]), stride, padding, dilation)
    return _windows(name, args, seen, output, values, transposed=transposed)


def _pool(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    kernel, stride, padding, dilation = (*args[1:5], *(None,) * 4)[:4]
    if name.startswith("avg"):
        dilation = None  # its fourth argument is ceil_mode
    return _windows(name, args, seen, output, (kernel, stride or kernel, padding or 0, dilation or 1))


def _adaptive_pool(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    if output.shape == args[0].shape:
        return seen
    sizes = output.shape[2 - output.ndim :]
    return _resized(name, seen, output, "area", scales=(None,) * len(sizes))


def _resized(
    name: str, seen: Seen, output: Tensor, mode: str, scales: Sequence[float | None], aligned: bool = False
) -> Seen:
    """State after interpolation of the last dimensions, which may contain axes."""
    if not seen.spatial:
        return replace(seen, dims=tuple(plain(size) for size in output.shape))
    seen = settled(seen)
    for index, scale in enumerate(scales):
        place = output.ndim - len(scales) + index
        found = _along_axis(seen, place)
        size = output.shape[place]
        if found is not None:
            seen = _mapped(seen, place, found[0].resized(found[1], size, mode, aligned, scale), size)
        elif seen.dims is None or is_spatial(seen.dims[place]):
            return seen.everywhere(name, None)
        else:
            seen = replace(seen, dims=_replaced(seen.dims, place, plain(size)))
    return seen


_MODES = {"nearest": "nearest", "nearest_exact": "nearest-exact", "bicubic": "cubic"} | dict.fromkeys(
    ("linear", "bilinear", "trilinear"), "linear"
)


def _upsample(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    """Upsampling; arguments: size, whether corners are aligned (except nearest), and scale of each dimension."""
    kind = name.strip("_").removeprefix("upsample_").removesuffix("_aa").removesuffix("d").rstrip("123")
    mode = _MODES.get(kind)
    sliding = output.ndim - 2
    given = list(args[2:]) + list(kwargs.values())
    aligned = mode in ("linear", "cubic") and bool(given.pop(0))
    scales = given[0] if given and isinstance(given[0], Sequence) else given
    scales = [scale or None for scale in scales] or [None] * sliding
    if mode is None or len(scales) != sliding:
        return seen.everywhere(name, None)
    return _resized(name, seen, output, mode + "-antialias" * name.endswith("_aa"), scales, aligned)


def _shuffle(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    factor = args[1]
    return _windows(name, args, seen, output, (factor, factor, 0, 1), transposed=name == "pixel_shuffle")


def _pad(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    """Padding of dimensions that may contain axes; the arguments begin with the last dimension."""
    mode = {"reflection": "reflect", "replication": "replicate"}.get(name.partition("_")[0], "constant")
    whole = settled(seen)
    for index, (ahead, behind) in enumerate(zip(args[1][::2], args[1][1::2], strict=True)):
        place = output.ndim - 1 - index
        if not (ahead or behind):
            continue
        found = _along_axis(whole, place)
        if found is not None:
            size = output.shape[place]
            whole = _mapped(whole, place, found[0].padded(ahead, behind, mode, found[1]), size)
        elif whole.dims is None or is_spatial(whole.dims[place]):
            return seen.everywhere(name, None)
        else:
            whole = replace(whole, dims=_replaced(whole.dims, place, plain(output.shape[place])))
    return whole


def _split(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    """Pieces of a dimension, as views."""
    place = _axis(args[2] if len(args) > 2 else 0, output.ndim)
    whole = settled(seen)
    if whole.dims is None:
        return whole
    if not is_spatial(whole.dims[place]):
        return replace(whole, dims=_replaced(whole.dims, place, plain(output.shape[place])))
    found, step = _along_axis(whole, place), args[0].stride(place)
    if found is None or step == 0:
        return seen.everywhere(name, None)
    first = (output.storage_offset() - args[0].storage_offset()) // step
    return _picked(whole, place, range(first, first + output.shape[place]))


def _reorder(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    """Permutation of the positions of some dimensions, by flipping or rolling."""
    places = args[1] if name == "flip" else args[2] if len(args) > 2 else []
    shifts = [None] * len(places) if name == "flip" else args[1]
    seen = settled(seen)
    if seen.dims is None or not places:
        return seen.everywhere(name, None) if seen.spatial else seen
    for place, shift in zip((_axis(place, output.ndim) for place in places), shifts, strict=True):
        found, size = _along_axis(seen, place), output.shape[place]
        if found is not None:
            order = range(size - 1, -1, -1) if shift is None else [(unit - shift) % size for unit in range(size)]
            seen = _picked(seen, place, order)
        elif seen.dims is None or is_spatial(seen.dims[place]):
            return seen.everywhere(name, None)
    return seen


def _rotate(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    """Rotation by quarter turns in the plane of two dimensions."""
    turns, (one, two) = (args[1] if len(args) > 1 else 1) % 4, args[2] if len(args) > 2 else (0, 1)
    if turns == 2:
        return _reorder("flip", (args[0], (one, two)), {}, seen, output)
    if turns == 0:
        return seen
    turned = _permute("transpose", (args[0], one, two), {}, settled(seen), output)
    return _reorder("flip", (output, (one if turns == 1 else two,)), {}, turned, output)


def _index(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    """Positions selected by index."""
    indices = {place: index for place, index in enumerate(args[1]) if index is not None} if name == "index" else {
        _axis(args[1], args[0].ndim): args[2]
    }  # fmt: skip
    (place, index), *others = indices.items()
    seen = settled(seen)
    if seen.dims is None or others or (index.ndim != 1 and name != "gather"):
        return seen.everywhere(name, None) if seen.spatial else replace(seen, dims=None)
    if name == "gather":
        changed = {place} | {at for at, size in enumerate(output.shape) if size != args[0].shape[at]}
        if any(is_spatial(seen.dims[at]) for at in changed):
            return seen.everywhere(name, None)
    elif (found := _along_axis(seen, place)) is not None:
        return _picked(seen, place, [int(unit) % found[1] for unit in index.tolist()])
    elif is_spatial(seen.dims[place]):
        return seen.everywhere(name, None)
    return replace(seen, dims=_replaced(seen.dims, place, plain(output.shape[place])))


def _repeat(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    wide = broadcast(settled(seen), output.ndim)
    if wide.dims is None:
        return wide
    for place, times in enumerate(args[1]):
        found = _along_axis(wide, place)
        if found is not None:
            wide = _picked(wide, place, [*range(found[1])] * times)
        elif wide.dims is None or (is_spatial(wide.dims[place]) and times != 1):
            return seen.everywhere(name, None)
    assert wide.dims is not None
    dims = (dim if is_spatial(dim) else plain(size) for dim, size in zip(wide.dims, output.shape, strict=True))
    return replace(wide, dims=tuple(dims))


def _unfold(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    """Windows along a dimension; their elements form a new last dimension."""
    place, kernel, stride = _axis(args[1], args[0].ndim), args[2], args[3]
    seen = settled(seen)
    if seen.dims is None:
        return seen
    seen = _windowed(name, seen, place, (kernel, stride, 0, 1), output.shape[place])
    if seen.dims is None:
        return seen
    return replace(seen, dims=(*seen.dims, plain(kernel)))


def _real(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    """Complex numbers as real and imaginary parts in a last dimension, or the reverse."""
    if seen.dims is None:
        return seen
    return replace(seen, dims=(*seen.dims, plain(2)) if name == "view_as_real" else seen.dims[:-1])


def _unpool(name: str, args: Arguments, find: Find, output: Tensor) -> Seen:
    """Unpooling to the positions of the maxima: unbounded, but spread evenly on average."""
    seen = find(args[0])
    if seen is None:
        return joined(name, [each for each in map(find, args[:2]) if each], output.shape).everywhere(name, None)
    laid = _resized(name, seen, output, "nearest", (None,) * (output.ndim - 2))
    return laid.everywhere(name, laid.dims)


def _copy(name: str, args: Arguments, find: Find, output: Tensor) -> Seen:
    """Replacement of the first argument by the second, broadcast."""
    source = find(args[1]) or find(args[0])
    assert source is not None
    return joined(name, [source], output.shape)


def _reduce(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    """Reductions over dimensions, such as sums, means and maxima."""
    count, at = args[0].ndim, 2 if name in ("norm", "linalg_vector_norm") else 1
    asked = kwargs.get("dim", args[at] if len(args) > at else None)
    if not isinstance(asked, int | Sequence) or isinstance(asked, bool) or asked == []:
        asked = range(count)
    gone = {_axis(place, count) for place in ([asked] if isinstance(asked, int) else asked)}
    if seen.dims is None:
        rest = set(range(2, count)) - gone
        return seen.everywhere(name, None if rest else tuple(plain(size) for size in output.shape))
    kept = output.ndim == count
    dims = tuple(() if place in gone else dim for place, dim in enumerate(seen.dims) if kept or place not in gone)
    if any(is_spatial(seen.dims[place]) for place in gone):
        return seen.everywhere(name, dims)
    return replace(seen, dims=dims)


def _along(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    """Operators along one dimension, such as softmax."""
    place = kwargs.get("dim", args[1] if len(args) > 1 else -1)
    if seen.dims is None or is_spatial(seen.dims[_axis(place, args[0].ndim)]):
        return seen.everywhere(name, seen.dims)
    place = _axis(place, args[0].ndim)
    return replace(seen, dims=_replaced(seen.dims, place, plain(output.shape[place])))


def _layer_norm(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    """Layer norm over the last dimensions; outputs of another shape are its statistics."""
    if output.shape != args[0].shape and seen.dims is not None:
        return replace(
            seen, dims=tuple(dim if size > 1 else () for dim, size in zip(seen.dims, output.shape, strict=True))
        )
    if seen.dims is None or any(is_spatial(dim) for dim in seen.dims[-len(args[1]) :]):
        return seen.everywhere(name, seen.dims)
    return seen


def _batch_norm(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    """Batch norm: per channel; in training mode, as in an instance norm, over all positions."""
    training = name not in _EVAL_NORMS and (len(args) < 6 or bool(args[5]))
    if output.shape != args[0].shape:
        return seen
    return seen.everywhere(name, seen.dims) if training else seen


_EVAL_NORMS = {"_batch_norm_no_update", "_native_batch_norm_legit_no_training"}


def _product(name: str, args: Arguments, found: Find, output: Tensor) -> Seen:
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
    seen = _operands(one, two, name) if is_left else _operands(two, one, name)
    return seen.everywhere(name, dims) if meet or summed or apart else replace(seen, dims=dims)


def _operands(main: Seen | None, other: Seen | None, name: str) -> Seen:
    """Union of the states of two factors, on the grid of the first."""
    if main is None or other is None:
        seen = main or other
        assert seen is not None
        return seen
    same = other.grid == main.grid
    field = main.field.union(other.field, main.grid) if same else main.field.unbounded(*other.field.unbounded_by, name)
    return replace(main, field=field)


def _attention(name: str, args: Arguments, found: Find, output: Tensor) -> Seen:
    """Fused attention of queries, keys and values (N, heads, positions, channels)."""
    operands = [each for each in map(found, args[:3]) if each is not None]
    query = found(args[0])
    seen = reduce(lambda one, two: _operands(one, two, "attention"), operands)
    if query is None or query.dims is None or output.ndim < len(query.dims):
        return seen.everywhere("attention", None)
    alone = all(each.dims and not is_spatial(each.dims[-2]) and each.dims[:-2] == query.dims[:-2] for each in operands)
    dims = (*query.dims[:-1], plain(output.shape[-1]))
    return replace(seen, dims=dims) if alone else seen.everywhere("attention", dims)


def _concatenate(name: str, args: Arguments, found: Find, output: Tensor) -> Seen:
    parts = list(args[0])
    place = _axis(args[1] if len(args) > 1 else 0, output.ndim)
    own = [found(part) for part in parts]
    seen = [each for each in own if each is not None]
    if name == "stack":
        seen = [_unsqueeze(name, (None, place), {}, each, output) for each in seen]
        return _concatenated(name, seen, output.shape, place)
    if any(each.dims is None for each in seen):
        return joined(name, seen, output.shape).everywhere(name, None)
    if not any(each.dims and is_spatial(each.dims[place]) for each in seen):
        return _concatenated(name, seen, output.shape, place)
    sizes = [part.shape[place] for part in parts]
    whole = [None if each is None else settled(each) for each in own]
    if all(_along_axis(each, place) is not None for each in whole if each is not None):
        return _end_to_end(name, whole, sizes, place)
    return _with_tokens(name, own, sizes, place)


def _end_to_end(name: str, parts: Sequence[Seen | None], sizes: Sequence[int], place: int) -> Seen:
    """Concatenation of parts along an axis of the map."""
    known = [each for each in parts if each is not None]
    main = known[0]
    assert main.dims is not None
    axis = axis_of(main.dims[place])
    grid = tuple(sum(sizes) if number == axis else size for number, size in enumerate(main.grid))
    dims = _replaced(main.dims, place, (Factor(sum(sizes), axis),))
    like = [_replaced(each.dims or (), place, dims[place]) for each in known]
    if axis is None or not all(agree(each, dims) and axis_of(each[place]) == axis for each in like):
        return replace(main, field=main.field.unbounded(name), dims=None)
    pairs = zip(parts, sizes, strict=True)
    joint = AxisField.concatenated([(None if each is None else each.field.axes[axis], size) for each, size in pairs])
    fields = [each.field.on(axis, joint) for each in known]
    return Seen(reduce(lambda one, two: one.union(two, grid), fields), grid, dims)


def _concatenated(name: str, seen: Sequence[Seen], shape: Sequence[int], place: int) -> Seen:
    both = joined(name, seen, shape)
    return both if both.dims is None else replace(both, dims=_replaced(both.dims, place, plain(shape[place])))


def _with_tokens(name: str, own: Sequence[Seen | None], sizes: Sequence[int], place: int) -> Seen:
    """Concatenation of a flattened map with tokens outside it, such as a class token, before or after."""
    maps = [index for index, each in enumerate(own) if each and each.dims and is_spatial(each.dims[place])]
    seen, others = own[maps[0]], [each for index, each in enumerate(own) if each and index not in maps]
    assert seen is not None
    assert seen.dims is not None
    dim = seen.dims[place]
    before, after = sum(sizes[: maps[0]]), sum(sizes[maps[0] + 1 :])
    if len(dim) == 1 and isinstance(dim[0], Tokens):
        before, after = before + dim[0].before, after + dim[0].after
    elif [getattr(factor, "axis", None) for factor in dim] != [*range(len(seen.grid))]:
        return seen.everywhere(name, None)
    if len(maps) > 1:
        return seen.everywhere(name, None)
    for other in others:
        local = () if other.field.infinite and not other.spatial else (name,)
        seen = replace(seen, field=seen.field.unbounded(*other.field.unbounded_by, *local))
    return replace(seen, dims=_replaced(seen.dims or (), place, (Tokens(sum(sizes), before, after),)))


SHAPE_ONLY = {f"{kind}_like" for kind in ("empty", "full", "ones", "rand", "randint", "randn", "zeros")} | {
    f"new_{kind}" for kind in ("empty", "empty_strided", "full", "ones", "zeros")
}
"""Operators that use only the shape of a tensor: their output depends on no pixel."""

_COPIES = ("_to_copy", "alias", "clone", "contiguous", "detach", "dropout", "lift_fresh", "native_dropout")
_VIEWS = ("_reshape_alias", "_reshape_copy", "_unsafe_view", "flatten", "reshape", "unflatten", "view")
_TURNS = ("numpy_T", "permute", "swapaxes", "t", "transpose")
_POOLS = tuple(f"{kind}_pool{n}d" for kind in ("avg", "max") for n in (1, 2, 3))
_ADAPTIVE = tuple(f"{head}adaptive_{pool}" for head in ("", "_") for pool in _POOLS)
_PADS = ("constant_pad_nd", *(f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)))
_STATISTICS = (
    "all", "amax", "amin", "any", "argmax", "argmin", "linalg_vector_norm", "logsumexp", "max", "mean", "min", "norm",
    "prod", "std", "std_mean", "sum", "var", "var_mean",
)  # fmt: skip
_ALONG = ("_log_softmax", "_softmax", "cummax", "cumprod", "cumsum", "glu", "log_softmax", "softmax", "sort")
_BATCH_NORMS = (
    "_batch_norm_with_update", "_native_batch_norm_legit", "cudnn_batch_norm", "miopen_batch_norm",
    "native_batch_norm", *_EVAL_NORMS,
)  # fmt: skip

_RULES: dict[str, Rule] = {
    **dict.fromkeys(_COPIES, _keep),
    **dict.fromkeys(_VIEWS, _view),
    **dict.fromkeys(_TURNS, _permute),
    **dict.fromkeys(("select", "unbind"), _select),
    **dict.fromkeys(("narrow", "slice"), _slice),
    **dict.fromkeys(("chunk", "split", "split_with_sizes"), _split),
    **dict.fromkeys(("flip", "roll"), _reorder),
    **dict.fromkeys(("gather", "index", "index_select"), _index),
    **dict.fromkeys((*_POOLS, *(f"{pool}_with_indices" for pool in _POOLS)), _pool),
    **dict.fromkeys(_ADAPTIVE, _adaptive_pool),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle"), _shuffle),
    **dict.fromkeys(_STATISTICS, _reduce),
    **dict.fromkeys(_ALONG, _along),
    **dict.fromkeys(("_fused_rms_norm", "native_layer_norm"), _layer_norm),
    **dict.fromkeys(_BATCH_NORMS, _batch_norm),
    **dict.fromkeys(_PADS, _pad),
    **dict.fromkeys(("view_as_complex", "view_as_real"), _real),
    "convolution": _convolution,
    "expand": _expand,
    "repeat": _repeat,
    "rot90": _rotate,
    "squeeze": _squeeze,
    "unfold": _unfold,
    "unsqueeze": _unsqueeze,
}

_JUNCTIONS: dict[str, Junction] = {
    **dict.fromkeys(("addmm", "baddbmm", "bmm", "mm"), _product),
    **dict.fromkeys(("cat", "stack"), _concatenate),
    **dict.fromkeys(("max_unpool2d", "max_unpool3d"), _unpool),
    "copy": _copy,
}

_POINTWISE = {"_prelu_kernel", "hardsigmoid", "hardswish", "log_sigmoid_forward", "prelu", "rrelu", "rrelu_with_noise"}
"""Pointwise operators without PyTorch's tag `pointwise`."""


def step(
    func: Any, args: Arguments, kwargs: Mapping[str, Any], find: Find, seen: Sequence[Seen], output: Tensor
) -> Seen:
    """Propagate receptive-field states through one operator.

    Args:
        func: ATen operator overload.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        find: Function that returns the state of an argument, None if it does not depend on the input.
        seen: States of all arguments that depend on the input.
        output: One output tensor.

    Returns:
        The state of the output; infinite, naming the operator, if no rule is exact.
    """
    name = func.overloadpacket.__name__
    base = name.rstrip("_") if not name.startswith("_") else "_" + name.strip("_")
    return _checked(base, _follow(func, base, args, kwargs, find, seen, output), output)


def _follow(
    func: Any, name: str, args: Arguments, kwargs: Mapping[str, Any], find: Find, seen: Sequence[Seen], output: Tensor
) -> Seen:
    if torch.Tag.pointwise in func.tags or name in _POINTWISE:
        return joined(name, seen, output.shape)
    if name in _JUNCTIONS:
        return _JUNCTIONS[name](name, args, find, output)
    if name.startswith("_scaled_dot_product"):
        return _attention(name, args, find, output)
    first = find(args[0]) if args else None
    if first is not None:
        rule = _upsample if name.lstrip("_").startswith("upsample") else _RULES.get(name)
        if rule is not None:
            ruled = rule(name, args, kwargs, first, output)
            # Other arguments that depend on the input, such as indices or weights, can connect all positions.
            return ruled if len(seen) == 1 else joined(name, seen, output.shape).everywhere(name, ruled.dims)
    main = joined(name, seen, output.shape)
    same = first is not None and args[0].shape == output.shape and name != "as_strided"
    return main.everywhere(name, first.dims if same and first else None)


def _checked(name: str, seen: Seen, output: Tensor) -> Seen:
    """Return a state whose axes match the output's shape; otherwise one with unknown dimensions."""
    if seen.dims is None:
        return seen
    if len(seen.dims) != output.ndim:
        return seen.everywhere(name, None)
    dims = tuple(
        dim if is_spatial(dim) or _size(dim) == size else plain(size)
        for dim, size in zip(seen.dims, output.shape, strict=True)
    )
    if any(_size(dim) != size for dim, size in zip(dims, output.shape, strict=True)):
        return seen.everywhere(name, None)
    return replace(seen, dims=dims)


def _size(dim: Dim) -> int:
    return math.prod(factor.size for factor in dim)
