"""Propagation of receptive-field states through one operator."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from erf.theory.operators.joining import attention
from erf.theory.operators.registry import JUNCTIONS, RULES, Arguments, Find
from erf.theory.operators.resampling import upsample
from erf.theory.operators.state import (
    Dim,
    State,
    is_spatial,
    joined,
    plain,
)

SHAPE_ONLY = {f"{kind}_like" for kind in ("empty", "full", "ones", "rand", "randint", "randn", "zeros")} | {
    f"new_{kind}" for kind in ("empty", "empty_strided", "full", "ones", "zeros")
}
"""Operators that use only the shape of a tensor: their output depends on no pixel."""

_POINTWISE = {"_prelu_kernel", "hardsigmoid", "hardswish", "log_sigmoid_forward", "prelu", "rrelu", "rrelu_with_noise"}
"""Pointwise operators without PyTorch's tag `pointwise`."""


def step(
    func: Any, args: Arguments, kwargs: Mapping[str, Any], find: Find, state: Sequence[State], output: Tensor
) -> State:
    """Propagate receptive-field states through one operator.

    Args:
        func: ATen operator overload.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        find: Function that returns the state of an argument, None if it does not depend on the input.
        state: States of all arguments that depend on the input.
        output: One output tensor.

    Returns:
        The state of the output; infinite, naming the operator, if no rule is exact.
    """
    name = func.overloadpacket.__name__
    base = name.rstrip("_") if not name.startswith("_") else "_" + name.strip("_")
    return _checked(base, _follow(func, base, args, kwargs, find, state, output), output)


def _follow(
    func: Any, name: str, args: Arguments, kwargs: Mapping[str, Any], find: Find, state: Sequence[State], output: Tensor
) -> State:
    if torch.Tag.pointwise in func.tags or name in _POINTWISE:
        return joined(name, state, output.shape)
    if name in JUNCTIONS:
        return JUNCTIONS[name](name, args, find, output)
    if name.startswith("_scaled_dot_product"):
        return attention(name, args, find, output)
    first = find(args[0]) if args else None
    if first is not None:
        rule = upsample if name.lstrip("_").startswith("upsample") else RULES.get(name)
        if rule is not None:
            ruled = rule(name, args, kwargs, first, output)
            # Other arguments that depend on the input, such as indices or weights, can connect all positions.
            return ruled if len(state) == 1 else joined(name, state, output.shape).everywhere(name, ruled.dims)
    main = joined(name, state, output.shape)
    same = first is not None and args[0].shape == output.shape and name != "as_strided"
    return main.everywhere(name, first.dims if same and first else None)


def _checked(name: str, state: State, output: Tensor) -> State:
    """Return a state whose axes match the output's shape; otherwise one with unknown dimensions."""
    if state.dims is None:
        return state
    if len(state.dims) != output.ndim:
        return state.everywhere(name, None)
    dims = tuple(
        dim if is_spatial(dim) or _size(dim) == size else plain(size)
        for dim, size in zip(state.dims, output.shape, strict=True)
    )
    if any(_size(dim) != size for dim, size in zip(dims, output.shape, strict=True)):
        return state.everywhere(name, None)
    return replace(state, dims=dims)


def _size(dim: Dim) -> int:
    return math.prod(factor.size for factor in dim)
