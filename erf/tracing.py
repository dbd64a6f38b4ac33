"""The theoretical receptive field of a layer, followed through the operators that the model runs.

They are watched during one forward pass of a blank image, without gradients: it is real, so it works for any model, and
it is faster than a pass on shape-only tensors, which would import PyTorch's compiler. Each operator is either known
to be local (windows, pointwise, channel-wise) or is taken to reach everywhere: an unknown operator can make the field
too large, never too small.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from erf.devices import is_memory_error
from erf.errors import InputError, LayerError
from erf.geometry import AxisField, ReceptiveField
from erf.gradients import frozen
from erf.layers import forward_to

_MOVES = {
    "_reshape_copy",
    "_to_copy",
    "_unsafe_view",
    "alias",
    "clone",
    "contiguous",
    "detach",
    "expand",
    "lift_fresh",
    "permute",
    "reshape",
    "squeeze",
    "t",
    "transpose",
    "unsqueeze",
    "view",
}
"""Operators that leave values as they are; that the map comes back in its old form is checked at the layer."""

_CHANNELWISE = {
    "_batch_norm_no_update",
    "_batch_norm_with_update",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "cudnn_batch_norm",
    "dropout",
    "miopen_batch_norm",
    "native_batch_norm",
    "native_dropout",
}

_POINTWISE = {"hardsigmoid", "hardswish", "prelu", "rrelu"}
"""Pointwise operators that PyTorch does not tag as such."""

_SELECTIONS = {"select", "slice"}

_POOLS = {"avg_pool2d", "max_pool2d", "max_pool2d_with_indices"}


@dataclass(frozen=True)
class Trace:
    """What a forward pass as far as a layer tells."""

    field: ReceptiveField
    feature_shape: tuple[int, int, int]
    """(channels, height, width) of the layer's map."""
    activation_bytes: int
    """Bytes of all maps on the way, per image: what autograd keeps at most."""
    depth: int
    """How many operators ran on what comes from the input before the layer returned."""
    alignment: tuple[int, int] = (1, 1)
    """(y, x): moved by multiples of so many pixels, the input meets every operator on the way as before."""


@dataclass(frozen=True)
class _Seen:
    """The field of the units of a tensor, and the (height, width) of the map to which they belong."""

    field: ReceptiveField
    grid: tuple[int, ...]


class _Follower(TorchDispatchMode):
    """Notes on each tensor that comes from the input what its positions have seen."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.operators = 0
        self.alignment = (1, 1)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False spares the import of PyTorch's compiler (2 s, 150 MB), which is never used here."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = [seen for leaf in tree_leaves((args, kwargs)) if (seen := _seen(leaf)) is not None]
        if inputs:
            self.operators += 1
            for output in tree_leaves(result):
                if isinstance(output, Tensor):
                    if not output._is_view() and _seen(output) is None:
                        self.bytes += output.nbytes
                    seen = _step(func, args, inputs, output)
                    self._align(seen.field)
                    _note(output, seen)
        return result

    def _align(self, field: ReceptiveField) -> None:
        y, x = self.alignment
        self.alignment = math.lcm(y, field.y.shift), math.lcm(x, field.x.shift)


def _note(tensor: Tensor, seen: _Seen) -> None:
    tensor._erf_seen = seen  # type: ignore[attr-defined]


def _seen(value: Any) -> _Seen | None:
    return getattr(value, "_erf_seen", None)


def _step(func: Any, args: Any, inputs: list[_Seen], output: Tensor) -> _Seen:
    name = func.overloadpacket.__name__
    base = name.removesuffix("_")
    if base in _MOVES:
        return inputs[0]
    grid = tuple(output.shape[-2:])
    over_map = isinstance(args[0], Tensor) and args[0].ndim == 4 and tuple(args[0].shape[-2:]) == inputs[0].grid
    if base == "convolution" and len(inputs) == 1 and over_map:
        _, weight, _, stride, padding, dilation, transposed = args[:7]
        return _Seen(_slide(inputs[0].field, weight.shape[2:], stride, padding, dilation, transposed), grid)
    if base in _POOLS and over_map:
        kernel, stride, padding, dilation = _pool_arguments(base, args)
        return _Seen(_slide(inputs[0].field, kernel, stride, padding, dilation), grid)
    pointwise = torch.Tag.pointwise in func.tags or base in _POINTWISE
    if pointwise or base in _CHANNELWISE or (base == "cat" and _concatenates_channels(args)):
        return _join(name, inputs)
    if base in _SELECTIONS and _selects_channels(args, inputs[0].grid):
        return inputs[0]
    joined = _join(name, inputs)
    return _Seen(joined.field.unbounded(name), joined.grid)


def _join(name: str, inputs: list[_Seen]) -> _Seen:
    """Branches of one grid and stride are united; anything else that flows in is taken to come from everywhere."""
    main = max(inputs, key=lambda seen: seen.grid)
    field = main.field
    for seen in inputs:
        if seen.grid == main.grid and seen.field.stride == main.field.stride:
            field = field.union(seen.field)
        else:
            field = field.unbounded(name)
    return _Seen(field, main.grid)


def _slide(
    field: ReceptiveField, kernel: Any, stride: Any, padding: Any, dilation: Any, transposed: bool = False
) -> ReceptiveField:
    along_y, along_x = zip(*(_pair(value) for value in (kernel, stride, padding, dilation)), strict=True)
    step = AxisField.transposed if transposed else AxisField.window
    return replace(field, y=step(field.y, *along_y), x=step(field.x, *along_x))


def _pool_arguments(name: str, args: Any) -> tuple[Any, Any, Any, Any]:
    kernel, stride, padding, dilation = (*args[1:5], *(None,) * 4)[:4]
    if name == "avg_pool2d":
        dilation = None  # its fourth argument is ceil_mode
    return kernel, stride or kernel, padding or 0, dilation or 1


def _pair(value: Any) -> tuple[int, int]:
    values = list(value) if isinstance(value, Iterable) else [value]
    return (values[0], values[-1])


def _concatenates_channels(args: Any) -> bool:
    dimension = args[1] if len(args) > 1 else 0
    return args[0][0].ndim == 4 and dimension in (1, -3)


def _selects_channels(args: Any, grid: tuple[int, ...]) -> bool:
    source, dimension = args[0], args[1] if len(args) > 1 else 0
    return tuple(source.shape[-2:]) == grid and dimension % source.ndim < source.ndim - 2


@contextmanager
def _moving_windows(model: nn.Module) -> Iterator[None]:
    """Modules that have a `sliding_window` (kernel, stride, padding, dilation) move its taps as the input tells them.

    Their own operators hide the window, so what such a module returns is noted when it is done.
    """

    def note(module: Any, args: Any, output: Tensor) -> None:
        seen = _seen(args[0])
        if seen is not None:
            field = _slide(seen.field, *module.sliding_window)
            _note(output, _Seen(replace(field, data_dependent=True), tuple(output.shape[-2:])))

    moving = [module for module in model.modules() if hasattr(module, "sliding_window")]
    handles = [module.register_forward_hook(note) for module in moving]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def trace(model: nn.Module, layers: Sequence[str], input_shape: tuple[int, int, int]) -> dict[str, Trace]:
    """Follow the receptive fields of layers for an input of shape (C, H, W), on the model's device.

    Raises `LayerError` where the layer is unknown, is not called or yields no map.
    """
    parameter = next(model.parameters(), torch.empty(0))
    source = torch.zeros((1, *input_shape), dtype=parameter.dtype, device=parameter.device)
    _note(source, _Seen(ReceptiveField(), input_shape[1:]))

    def look(layer: str, output: Tensor) -> Trace:
        feature_shape = (output.shape[1], output.shape[2], output.shape[3])
        return Trace(
            _field_of(output, layer, input_shape[1:]),
            feature_shape,
            follower.bytes,
            follower.operators,
            follower.alignment,
        )

    with torch.no_grad(), frozen(model), _moving_windows(model), _Follower() as follower:
        try:
            return forward_to(model, layers, source, look)
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            if isinstance(error, LayerError) or is_memory_error(error):
                raise
            shape = "x".join(map(str, input_shape))
            reason = str(error).splitlines()[0]
            raise InputError(
                f"{type(model).__name__} cannot run on an input of {shape} ({reason}); try another size"
            ) from error


def _field_of(output: Tensor, layer: str, size: tuple[int, int]) -> ReceptiveField:
    """What the output notes; where its grid was made by global operators alone, units that tile the image evenly."""
    seen, grid = _seen(output), tuple(output.shape[-2:])
    if seen is not None and seen.grid == grid:
        return seen.field
    if seen is not None and seen.field.infinite:
        y, x = (AxisField.tiling(*pair) for pair in zip(grid, size, strict=True))
        return replace(seen.field, y=y, x=x)
    raise LayerError(
        f"layer '{layer}' of shape {tuple(output.shape)} is not a map over the input that can be followed; "
        "choose a layer whose output keeps the order (N, C, H, W)"
    )


def theoretical_receptive_field(model: nn.Module, layer: str, input_shape: tuple[int, int, int]) -> ReceptiveField:
    """Size, stride and offset of what the units of a layer see of an input of shape (C, H, W), in pixels.

    Recursion of Araujo, Norris, Sim (Distill 2019), taken over the operators that one forward pass runs, so that
    branches, dilation and padding count as they run. The size is infinite where an operator is global, or is not
    known to be local; `ReceptiveField.unbounded_by` names it.
    """
    return trace(model, [layer], input_shape)[layer].field
