"""Rules of reductions, normalisation, and operators along one dimension."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from erf.theory.operators.axes import axis_number, replaced
from erf.theory.operators.registry import Arguments, rule
from erf.theory.operators.state import State, is_spatial, plain

_STATISTICS = (
    "all", "amax", "amin", "any", "argmax", "argmin", "linalg_vector_norm", "logsumexp", "max", "mean", "min", "norm",
    "prod", "std", "std_mean", "sum", "var", "var_mean",
)  # fmt: skip

_TRAINING_NORMS = (
    "_batch_norm_with_update", "_native_batch_norm_legit", "cudnn_batch_norm", "miopen_batch_norm",
    "native_batch_norm",
)  # fmt: skip

_EVAL_NORMS = {"_batch_norm_no_update", "_native_batch_norm_legit_no_training"}


@rule(*_STATISTICS)
def _reduce(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    """Reductions over dimensions, such as sums, means and maxima."""
    count, at = args[0].ndim, 2 if name in ("norm", "linalg_vector_norm") else 1
    asked = kwargs.get("dim", args[at] if len(args) > at else None)
    if not isinstance(asked, int | Sequence) or isinstance(asked, bool) or asked == []:
        asked = range(count)
    gone = {axis_number(place, count) for place in ([asked] if isinstance(asked, int) else asked)}
    if state.dims is None:
        rest = set(range(2, count)) - gone
        return state.everywhere(name, None if rest else tuple(plain(size) for size in output.shape))
    kept = output.ndim == count
    dims = tuple(() if place in gone else dim for place, dim in enumerate(state.dims) if kept or place not in gone)
    if any(is_spatial(state.dims[place]) for place in gone):
        return state.everywhere(name, dims)
    return replace(state, dims=dims)


@rule("_log_softmax", "_softmax", "cummax", "cumprod", "cumsum", "glu", "log_softmax", "softmax", "sort")
def _along(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    """Operators along one dimension, such as softmax."""
    place = kwargs.get("dim", args[1] if len(args) > 1 else -1)
    if state.dims is None or is_spatial(state.dims[axis_number(place, args[0].ndim)]):
        return state.everywhere(name, state.dims)
    place = axis_number(place, args[0].ndim)
    return replace(state, dims=replaced(state.dims, place, plain(output.shape[place])))


@rule("_fused_rms_norm", "native_layer_norm")
def _layer_norm(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    """Layer norm over the last dimensions; outputs of another shape are its statistics."""
    if output.shape != args[0].shape and state.dims is not None:
        return replace(
            state, dims=tuple(dim if size > 1 else () for dim, size in zip(state.dims, output.shape, strict=True))
        )
    if state.dims is None or any(is_spatial(dim) for dim in state.dims[-len(args[1]) :]):
        return state.everywhere(name, state.dims)
    return state


@rule(*_TRAINING_NORMS, *_EVAL_NORMS)
def _batch_norm(name: str, args: Arguments, kwargs: Mapping[str, Any], state: State, output: Tensor) -> State:
    """Batch norm: per channel; in training mode, as in an instance norm, over all positions."""
    training = name not in _EVAL_NORMS and (len(args) < 6 or bool(args[5]))
    if output.shape != args[0].shape:
        return state
    return state.everywhere(name, state.dims) if training else state
