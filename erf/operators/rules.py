"""Rules: from an operator's arguments, what they have seen, and its output, to what the output has seen."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from erf.geometry import AxisField
from erf.operators.seen import (
    Dim,
    Dims,
    Factor,
    Seen,
    Tokens,
    broadcast,
    dims_of_map,
    guessed,
    is_spatial,
    joined,
    plain,
    regroup,
    settled,
)

Arguments = Sequence[Any]
Find = Callable[[Any], Seen | None]
Rule = Callable[[str, Arguments, Mapping[str, Any], Seen, Tensor], Seen]
"""Of operators with one argument that comes from the input."""
Junction = Callable[[str, Arguments, Find, Tensor], Seen]
"""Of operators whose arguments play different parts."""


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
    dims = tuple(dim or plain(size) for dim, size in zip(wide.dims, output.shape, strict=True))
    return replace(wide, dims=dims)


def _select(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    """One position of a dimension, which goes."""
    place = _axis(args[1] if len(args) > 1 else 0, args[0].ndim)
    if seen.dims is None or is_spatial(seen.dims[place]):
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
    whole = settled(seen, args[0].shape)
    assert whole.dims is not None
    factors = whole.dims[place]
    if len(factors) == 1 and isinstance(factors[0], Factor) and factors[0].axis is not None:
        return _slid(whole, {factors[0].axis: (1, every, -first, 1)}, output.shape[place : place + 1], [place])
    return seen.everywhere(name, None)


def _unpacked(tokens: Tokens, grid: tuple[int, ...]) -> Dim:
    """The axes themselves, where no other token is left."""
    if tokens.before or tokens.after:
        return (tokens,)
    return tuple(Factor(size, axis) for axis, size in enumerate(grid))


def _replaced(dims: Dims, place: int, dim: Dim) -> Dims:
    return (*dims[:place], dim, *dims[place + 1 :])


def _slid(
    seen: Seen,
    windows: Mapping[int, tuple[int, int, int, int]],
    sizes: Sequence[int],
    places: Sequence[int],
    transposed: bool = False,
) -> Seen:
    """After windows (kernel, stride, padding, dilation) by axis, whose dimensions then have these sizes."""
    assert seen.dims is not None
    field, grid, dims = seen.field, list(seen.grid), list(seen.dims)
    for (axis, window), size, place in zip(windows.items(), sizes, places, strict=True):
        step = AxisField.transposed if transposed else AxisField.window
        field = field.on(axis, step(field.axes[axis], *window))
        grid[axis] = size
        dims[place] = (Factor(size, axis),)
    return Seen(field, tuple(grid), tuple(dims))


def _as_map(seen: Seen, shape: Sequence[int]) -> Seen | None:
    """The same where the tensor is a map (N, C, *axes), or (C, *axes), in this order."""
    whole = settled(seen, shape)
    axes = tuple((Factor(size, axis),) for axis, size in enumerate(whole.grid))
    if whole.dims is None or len(shape) <= len(axes) or whole.dims[-len(axes) :] != axes:
        return None
    return None if any(is_spatial(dim) for dim in whole.dims[: -len(axes)]) else whole


def _windows(name: str, args: Arguments, seen: Seen, output: Tensor, values: Sequence[Any], **options: Any) -> Seen:
    """A sliding window over a map; `values` are kernel, stride, padding and dilation."""
    if not seen.spatial:
        return replace(seen, dims=tuple(plain(size) for size in output.shape))
    whole = _as_map(seen, args[0].shape)
    count = len(seen.grid)
    kernels = [_each(value, len(args[0].shape) - 2) for value in values]
    if whole is None or len(kernels[0]) < count:
        return seen.everywhere(name, None)
    kernels = [kernel[-count:] for kernel in kernels]  # what slides before that, slides over channels
    windows = dict(enumerate(zip(*kernels, strict=True)))
    slid = _slid(whole, windows, output.shape[-count:], range(output.ndim - count, output.ndim), **options)
    assert slid.dims is not None
    return replace(slid, dims=(*(plain(size) for size in output.shape[:-count]), *slid.dims[-count:]))


def slide(seen: Seen, window: tuple[int, int, int, int], output: Tensor) -> Seen:
    """After a sliding window (kernel, stride, padding, dilation) over a map, whatever operators it is made of."""
    count = len(seen.grid)
    grid = tuple(output.shape[-count:])
    axes = tuple(axis.window(*window) for axis in seen.field.axes)
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
    plain_dims = tuple(plain(size) for size in output.shape)
    if math.prod(output.shape[-len(seen.grid) :]) == 1:
        return seen.everywhere(name, plain_dims)
    return _tiled(seen.everywhere(name, None), output)


def _tiled(seen: Seen, output: Tensor) -> Seen:
    """Units that share the axes of the map before evenly, and see all of it."""
    grid = tuple(output.shape[-len(seen.grid) :])
    pairs = zip(seen.field.axes, seen.grid, grid, strict=True)
    axes = tuple(
        axis.window(before // after, before // after, 0, 1) if before % after == 0 else axis.resized(before, after, 1)
        for axis, before, after in pairs
    )
    return Seen(replace(seen.field, axes=axes), grid, guessed(grid, output.shape))


_REACH = {"nearest": 1, "nearest-exact": 1, "linear": 2, "bilinear": 2, "trilinear": 2, "bicubic": 4}


def _upsample(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    whole = _as_map(seen, args[0].shape)
    kind = name.strip("_").removeprefix("upsample_").rstrip("123d")
    if not seen.spatial:
        return replace(seen, dims=tuple(plain(size) for size in output.shape))
    if whole is None or kind not in _REACH or kwargs.get("antialias") or name.endswith("_aa"):
        return seen.everywhere(name, None)
    aligned = bool(args[2]) if _REACH[kind] > 1 else False
    count = len(whole.grid)
    grid = tuple(output.shape[-count:])
    axes = tuple(
        axis.resized(before, after, _REACH[kind], aligned)
        for axis, before, after in zip(whole.field.axes, whole.grid, grid, strict=True)
    )
    return Seen(replace(whole.field, axes=axes), grid, guessed(grid, output.shape))


def _shuffle(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    factor = args[1]
    return _windows(name, args, seen, output, (factor, factor, 0, 1), transposed=name == "pixel_shuffle")


def _pad(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    """Zeros around a map, wherever its axes are; dimensions are given from the last on."""
    before = [args[1][place] for place in range(0, len(args[1]), 2)]
    after = [args[1][place] for place in range(1, len(args[1]), 2)]
    whole = settled(seen, args[0].shape)
    if whole.dims is None:
        return seen.everywhere(name, None)
    for index, (ahead, behind) in enumerate(zip(before, after, strict=True)):
        place = args[0].ndim - 1 - index
        dim = whole.dims[place] if whole.dims else ()
        if not (ahead or behind):
            continue
        if not is_spatial(dim):
            whole = replace(whole, dims=_replaced(whole.dims or (), place, plain(output.shape[place])))
        elif len(dim) == 1 and isinstance(dim[0], Factor) and dim[0].axis is not None:
            whole = _slid(whole, {dim[0].axis: (1, 1, ahead, 1)}, [output.shape[place]], [place])
        else:
            return seen.everywhere(name, None)
    return whole


def _split(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    """Pieces of a dimension."""
    place = _axis(args[2] if len(args) > 2 else 0, output.ndim)
    if seen.dims is None or is_spatial(seen.dims[place]):
        return seen.everywhere(name, None)
    return replace(seen, dims=_replaced(seen.dims, place, plain(output.shape[place])))


def _reorder(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    """Positions of some dimensions change places."""
    places = args[1] if name == "flip" else args[2] if len(args) > 2 else []
    if seen.dims is None or not places or any(is_spatial(seen.dims[_axis(place, output.ndim)]) for place in places):
        return seen.everywhere(name, seen.dims)
    return seen


def _index(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    """Positions picked by number."""
    if name == "index":
        places = [place for place, index in enumerate(args[1]) if index is not None]
        simple = len(places) == 1 and args[1][places[0]].ndim == 1
    else:
        places, simple = [_axis(args[1], args[0].ndim)], True
    if seen.dims is None or not simple or any(is_spatial(seen.dims[place]) for place in places):
        same = output.shape == args[0].shape
        return seen.everywhere(name, seen.dims if same else None)
    return replace(seen, dims=_replaced(seen.dims, places[0], plain(output.shape[places[0]])))


def _repeat(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    wide = broadcast(seen, output.ndim)
    if wide.dims is None:
        return wide
    spatial = [place for place, dim in enumerate(wide.dims) if is_spatial(dim)]
    if any(args[1][place] != 1 for place in spatial):
        return seen.everywhere(name, None)
    sizes = enumerate(output.shape)
    return replace(wide, dims=tuple(wide.dims[at] if at in spatial else plain(size) for at, size in sizes))


def _reduce(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    """Sums, means and maxima over dimensions."""
    count, at = args[0].ndim, 2 if name in ("norm", "linalg_vector_norm") else 1
    asked = kwargs.get("dim", args[at] if len(args) > at else None)
    if not isinstance(asked, int | Sequence) or isinstance(asked, bool) or asked == []:
        asked = range(count)
    gone = {_axis(place, count) for place in ([asked] if isinstance(asked, int) else asked)}
    if seen.dims is None:
        return seen.everywhere(name, None)
    kept = output.ndim == count
    dims = tuple(() if place in gone else dim for place, dim in enumerate(seen.dims) if kept or place not in gone)
    if any(is_spatial(seen.dims[place]) for place in gone):
        return seen.everywhere(name, dims)
    return replace(seen, dims=dims)


def _along(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    """Softmax and the like along one dimension."""
    place = kwargs.get("dim", args[1] if len(args) > 1 else -1)
    if seen.dims is None or is_spatial(seen.dims[_axis(place, args[0].ndim)]):
        return seen.everywhere(name, seen.dims)
    place = _axis(place, args[0].ndim)
    return replace(seen, dims=_replaced(seen.dims, place, plain(output.shape[place])))


def _layer_norm(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    """Over the last dimensions; its statistics have those before."""
    if output.shape != args[0].shape and seen.dims is not None:
        return replace(
            seen, dims=tuple(dim if size > 1 else () for dim, size in zip(seen.dims, output.shape, strict=True))
        )
    if seen.dims is None or any(is_spatial(dim) for dim in seen.dims[-len(args[1]) :]):
        return seen.everywhere(name, seen.dims)
    return seen


def _batch_norm(name: str, args: Arguments, kwargs: Mapping[str, Any], seen: Seen, output: Tensor) -> Seen:
    """Channel by channel; in training mode, as in an instance norm, over all positions."""
    training = name not in _EVAL_NORMS and (len(args) < 6 or bool(args[5]))
    if output.shape != args[0].shape:
        return seen
    return seen.everywhere(name, seen.dims) if training else seen


_EVAL_NORMS = {"_batch_norm_no_update", "_native_batch_norm_legit_no_training"}


def _product(name: str, args: Arguments, found: Find, output: Tensor) -> Seen:
    """Matrix products (…, n, k) by (…, k, m): local where nothing is summed over positions and no two of them meet."""
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
    """What two factors have seen; the grid is that of the first."""
    if main is None or other is None:
        seen = main or other
        assert seen is not None
        return seen
    same = other.grid == main.grid and other.field.stride == main.field.stride
    field = main.field.union(other.field) if same else main.field.unbounded(*other.field.unbounded_by, name)
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
    seen = [each for each in map(found, parts) if each is not None]
    shape = output.shape
    if name == "stack":
        seen = [_unsqueeze(name, (None, place), {}, each, output) for each in seen]
        return _concatenated(name, seen, shape, place)
    inside = [each for each in seen if each.dims is not None and is_spatial(each.dims[place])]
    if not inside and all(each.dims is not None for each in seen):
        return _concatenated(name, seen, shape, place)
    if len(inside) == 1 and all(each.dims is not None for each in seen):
        own = [each if each is inside[0] else None for each in map(found, parts)]
        joint = _with_tokens(name, inside[0], [part.shape[place] for part in parts], own, place)
        names = [by for each in seen for by in each.field.unbounded_by]
        return replace(joint, field=joint.field.unbounded(*names)) if names else joint
    return joined(name, seen, shape).everywhere(name, None)


def _concatenated(name: str, seen: Sequence[Seen], shape: Sequence[int], place: int) -> Seen:
    both = joined(name, seen, shape)
    return both if both.dims is None else replace(both, dims=_replaced(both.dims, place, plain(shape[place])))


def _with_tokens(name: str, seen: Seen, sizes: Sequence[int], found: Sequence[Seen | None], place: int) -> Seen:
    """Tokens that come from no pixel, such as a class token, put before or after a flattened map."""
    assert seen.dims is not None
    index = next(number for number, each in enumerate(found) if each is not None)
    before, after = sum(sizes[:index]), sum(sizes[index + 1 :])
    dim = seen.dims[place]
    if len(dim) == 1 and isinstance(dim[0], Tokens):
        before, after = before + dim[0].before, after + dim[0].after
    elif [getattr(factor, "axis", None) for factor in dim] != [*range(len(seen.grid))]:
        return seen.everywhere(name, None)
    return replace(seen, dims=_replaced(seen.dims, place, (Tokens(sum(sizes), before, after),)))


SHAPE_ONLY = {f"{kind}_like" for kind in ("empty", "full", "ones", "rand", "randint", "randn", "zeros")} | {
    f"new_{kind}" for kind in ("empty", "empty_strided", "full", "ones", "zeros")
}
"""Operators that look at the shape of a tensor only: what they make comes from no pixel."""

_COPIES = ("_to_copy", "alias", "clone", "contiguous", "detach", "dropout", "lift_fresh", "native_dropout")
_VIEWS = ("_reshape_alias", "_reshape_copy", "_unsafe_view", "flatten", "reshape", "unflatten", "view")
_TURNS = ("numpy_T", "permute", "swapaxes", "t", "transpose")
_POOLS = tuple(f"{kind}_pool{n}d" for kind in ("avg", "max") for n in (1, 2, 3))
_ADAPTIVE = tuple(f"{head}adaptive_{pool}" for head in ("", "_") for pool in _POOLS)
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
    "constant_pad_nd": _pad,
    "convolution": _convolution,
    "expand": _expand,
    "repeat": _repeat,
    "squeeze": _squeeze,
    "unsqueeze": _unsqueeze,
}

_JUNCTIONS: dict[str, Junction] = {
    **dict.fromkeys(("addmm", "baddbmm", "bmm", "mm"), _product),
    **dict.fromkeys(("cat", "stack"), _concatenate),
}

_POINTWISE = {"_prelu_kernel", "hardsigmoid", "hardswish", "log_sigmoid_forward", "prelu", "rrelu", "rrelu_with_noise"}
"""Pointwise operators that PyTorch does not tag as such."""


def step(
    func: Any, args: Arguments, kwargs: Mapping[str, Any], find: Find, seen: Sequence[Seen], output: Tensor
) -> Seen:
    """What an output of an operator has seen; `find` tells it of an argument, `seen` has all that are known."""
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
    if len(seen) == 1 and first is not None:
        if name.lstrip("_").startswith("upsample"):
            return _upsample(name, args, kwargs, first, output)
        if name in _RULES:
            return _RULES[name](name, args, kwargs, first, output)
    main = joined(name, seen, output.shape)
    same = first is not None and args[0].shape == output.shape
    return main.everywhere(name, first.dims if same and first else None)


def _checked(name: str, seen: Seen, output: Tensor) -> Seen:
    """What was found, where its axes fit the output's shape; else the order is lost."""
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
