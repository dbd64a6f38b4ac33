"""Rules of interpolation, padding and unpooling."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from erf.theory.interpolation import interpolated
from erf.theory.operators.axes import along_axis, mapped, replaced
from erf.theory.operators.registry import Arguments, Find, junction, rule
from erf.theory.operators.state import State, is_spatial, joined, plain, settled
from erf.theory.sampling import padded

_MODES = {"nearest": "nearest", "nearest_exact": "nearest-exact", "bicubic": "cubic"} | dict.fromkeys(
    ("linear", "bilinear", "trilinear"), "linear"
)


@rule(*(f"{head}adaptive_{kind}_pool{n}d" for head in ("", "_") for kind in ("avg", "max") for n in (1, 2, 3)))
def _adaptive_pool(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    if output.shape == args[0].shape:
        return state
    sizes = output.shape[2 - output.ndim :]
    return resized(name, state, output, "area", scales=(None,) * len(sizes))


def upsample(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    """Upsampling; arguments: size, whether corners are aligned (except nearest), and scale of each dimension."""
    kind = name.strip("_").removeprefix("upsample_").removesuffix("_aa").removesuffix("d").rstrip("123")
    mode = _MODES.get(kind)
    sliding = output.ndim - 2
    given = list(args[2:]) + list(kwargs.values())
    aligned = mode in ("linear", "cubic") and bool(given.pop(0))
    scales = given[0] if given and isinstance(given[0], Sequence) else given
    scales = [scale or None for scale in scales] or [None] * sliding
    if mode is None or len(scales) != sliding:
        return state.everywhere(name, None)
    return resized(name, state, output, mode + "-antialias" * name.endswith("_aa"), scales, aligned)


@rule("constant_pad_nd", *(f"{kind}_pad{n}d" for kind in ("reflection", "replication") for n in (1, 2, 3)))
def _pad(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    """Padding of dimensions that may contain axes; the arguments begin with the last dimension."""
    mode = {"reflection": "reflect", "replication": "replicate"}.get(name.partition("_")[0], "constant")
    whole = settled(state)
    for index, (ahead, behind) in enumerate(zip(args[1][::2], args[1][1::2], strict=True)):
        place = output.ndim - 1 - index
        if not (ahead or behind):
            continue
        found = along_axis(whole, place)
        if found is not None:
            size = output.shape[place]
            whole = mapped(whole, place, padded(found[0], ahead, behind, mode, found[1]), size)
        elif whole.dims is None or is_spatial(whole.dims[place]):
            return state.everywhere(name, None)
        else:
            whole = replace(whole, dims=replaced(whole.dims, place, plain(output.shape[place])))
    return whole


@junction("max_unpool2d", "max_unpool3d")
def _unpool(name: str, args: Arguments, find: Find, output: Tensor) -> State:
    """Unpooling to the positions of the maxima: unbounded, but spread evenly on average."""
    state = find(args[0])
    if state is None:
        return joined(name, [each for each in map(find, args[:2]) if each], output.shape).everywhere(name, None)
    laid = resized(name, state, output, "nearest", (None,) * (output.ndim - 2))
    return laid.everywhere(name, laid.dims)


def resized(
    name: str, state: State, output: Tensor, mode: str, scales: Sequence[float | None], aligned: bool = False
) -> State:
    """State after interpolation of the last dimensions, which may contain axes."""
    if not state.spatial:
        return replace(state, dims=tuple(plain(size) for size in output.shape))
    state = settled(state)
    for index, scale in enumerate(scales):
        place = output.ndim - len(scales) + index
        found = along_axis(state, place)
        size = output.shape[place]
        if found is not None:
            state = mapped(state, place, interpolated(found[0], found[1], size, mode, aligned, scale), size)
        elif state.dims is None or is_spatial(state.dims[place]):
            return state.everywhere(name, None)
        else:
            state = replace(state, dims=replaced(state.dims, place, plain(size)))
    return state
