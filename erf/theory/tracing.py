"""Tracing: the theoretical receptive field of a layer, propagated through the operators that the model runs.

Operators are recorded during one forward pass of a blank image, without gradients. The pass is real, so it works for
any model, and it is faster than one on shape-only tensors, which would import PyTorch's compiler. Each operator is
either known to be local (windows, pointwise, channel-wise) or is assumed to be global: an unknown operator can make the
field too large, never too small.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from erf.errors import InputError, LayerError
from erf.network.devices import is_memory_error
from erf.network.inputs import Arrange, alone
from erf.network.layers import Layout, forward_to
from erf.network.modes import frozen
from erf.theory.axis import tiling
from erf.theory.fields import ReceptiveField
from erf.theory.operators import SHAPE_ONLY, State, joined, settled, slide, step, written_into


@dataclass(frozen=True)
class Trace:
    """Properties of a layer found by a forward pass up to it."""

    field: ReceptiveField
    feature_shape: tuple[int, ...]
    """(channels, height, width) of the layer's map."""
    layout: Layout
    """Layout by which the layer's output is read as this map."""
    activation_bytes: int
    """Bytes per image of all maps up to the layer: the most that autograd can keep."""
    depth: int
    """Number of operators on tensors that depend on the input, before the layer returned."""
    alignment: tuple[int, int] = (1, 1)
    """(y, x) in pixels: shifts by multiples of these leave the phase of every stride unchanged."""
    random: bool = False
    """Whether the network draws random numbers in eval mode."""
    reads: bool = False
    """Whether the program reads numbers out of maps, as for an `if`: then the whole input may decide what runs."""


class Follower(TorchDispatchMode):
    """Mode that attaches to each tensor computed from the input its receptive-field state (`State`)."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.operators = 0
        self.alignment = (1, 1)
        self.reads = False
        self._written: dict[int, _Written] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False, which avoids the import of PyTorch's compiler (2 s, 150 MB), never used here."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = [state for leaf in tree_leaves((args, kwargs)) if (state := self.find(leaf)) is not None]
        result = func(*args, **(kwargs or {}))
        if inputs and func.overloadpacket.__name__ not in SHAPE_ONLY:
            self.operators += 1
            for output in tree_leaves(result):
                if isinstance(output, bool | int | float | complex):
                    self.reads = True
                elif isinstance(output, Tensor) and output.numel():  # an empty tensor depends on nothing
                    if self.find(output) is None:
                        self.bytes += 0 if func.is_view else output.nbytes
                    state = step(func, args, kwargs or {}, self.find, inputs, output)
                    self._align(state.field)
                    if any(output is changed for changed in _changed(func, args, kwargs or {})):
                        self._write(func.overloadpacket.__name__, output, state)
                    self._note(output, state)
        return result

    def _note(self, tensor: Tensor, state: State) -> None:
        note(tensor, state, self.operators)

    def find(self, value: Any) -> State | None:
        """Return a tensor's receptive-field state, which writes through views of the same storage may have changed."""
        if not isinstance(value, Tensor):
            return None
        own = _find(value)
        written = self._written.get(_storage(value)) if self._written else None
        if written is None or (own is not None and value._erf_when >= written.when):  # type: ignore[attr-defined]
            return own
        # The storage of a constant may have been that of a written tensor that no longer exists.
        return written.state if own is not None or written.whole is not None else None

    def _write(self, name: str, output: Tensor, state: State) -> None:
        """Record a write in place.

        The base tensor knows where it was written; for its other views the position is unknown.
        """
        base = output if output._base is None else output._base
        lost = replace(state, field=state.field.unbounded(f"{name} into a part"), dims=None)
        if base is not output:
            before = self.find(base)
            after = written_into(base, before, output, state) or lost
            self._note(base, after)
            lost = joined(name, [lost, after], base.shape)
            lost = replace(lost, dims=None)
        # A tensor without state is kept alive, so that its storage is not reused for another one.
        kept = base if base is not output or self.find(output) is None else None
        self._written[_storage(output)] = _Written(kept, lost, self.operators)

    def _align(self, field: ReceptiveField) -> None:
        if len(field.axes) == 2:
            y, x = self.alignment
            self.alignment = math.lcm(y, field.y.shift or 1), math.lcm(x, field.x.shift or 1)


@dataclass(frozen=True)
class _Written:
    """A storage that an operator wrote into."""

    whole: Tensor | None
    """The tensor, where views of it may have been made before it had a state."""
    state: State
    """State of views made before the write."""
    when: int
    """Number of operators before the write."""


def _changed(func: Any, args: Any, kwargs: Any) -> list[Any]:
    """List the arguments that an operator writes into."""
    named = zip(func._schema.arguments, [*args, *[None] * len(func._schema.arguments)], strict=False)
    return [
        kwargs.get(argument.name, value)
        for argument, value in named
        if argument.alias_info is not None and argument.alias_info.is_write
    ]


def _storage(tensor: Tensor) -> int:
    """Identify the storage of a tensor; on the meta device storages have no data address."""
    return int(tensor.untyped_storage()._cdata) if tensor.layout is torch.strided else 0


def note(tensor: Tensor, state: State, when: int = 0) -> None:
    """Attach to a tensor its receptive-field state, and the number of operators that ran before."""
    tensor._erf_state, tensor._erf_when = state, when  # type: ignore[attr-defined]


def _find(value: Any) -> State | None:
    return getattr(value, "_erf_state", None)


@contextmanager
def _moving_windows(model: nn.Module) -> Iterator[None]:
    """Context manager that handles modules with a `sliding_window` (kernel, stride, padding, dilation).

    Such modules shift the taps of the kernel depending on the input. Their operators hide the window, so the state of
    the output is set when the module returns.
    """

    def renew(module: Any, args: Any, output: Tensor) -> None:
        state = _find(args[0])
        if state is not None:
            slid = slide(state, module.sliding_window, output)
            note(output, replace(slid, field=replace(slid.field, data_dependent=True)), output._erf_when)  # type: ignore[attr-defined]

    moving = [module for module in model.modules() if hasattr(module, "sliding_window")]
    handles = [module.register_forward_hook(renew) for module in moving]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def trace(
    model: nn.Module, layers: Sequence[str], input_shape: Sequence[int], arrange: Arrange = alone
) -> dict[str, Trace]:
    """Trace the receptive fields of layers in one forward pass, on the model's device.

    Args:
        model: the network.
        layers: paths of the layers.
        input_shape: (C, H, W) of an input.
        arrange: builds the network's arguments from the input.

    Returns:
        The trace of each layer, by name.

    Raises:
        LayerError: a layer is unknown, is not called or called more than once, or yields no map.
        InputError: the model cannot run on an input of this shape.
    """

    def look(layer: str, output: Tensor) -> Trace:
        return follow(layer, output, follower, sources[0].shape[2:])

    sources = sourced(arrange(blank(model, input_shape)))
    before = random_state(sources[0].device)
    with watched(model, input_shape) as follower:
        found = forward_to(model, layers, sources, look, once=True)
    is_random = not torch.equal(before, random_state(sources[0].device))
    return {layer: replace(traced, random=is_random) for layer, traced in found.items()}


def random_state(device: torch.device) -> Tensor:
    """Return the state of the random generators that a network on the device uses."""
    states = [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])
    return torch.cat(states)


def sourced(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Attach to inputs (N, C, *axes) the initial state, in which each pixel depends on itself, and return them."""
    for source in inputs:
        note(source, State.source(source.shape))
    return inputs


def blank(model: nn.Module, input_shape: Sequence[int]) -> Tensor:
    """Return zeros (1, C, H, W) with the dtype and device of the model's parameters."""
    parameter = next(model.parameters(), torch.empty(0))
    return torch.zeros((1, *input_shape), dtype=parameter.dtype, device=parameter.device)


@contextmanager
def watched(model: nn.Module, input_shape: Sequence[int]) -> Iterator[Follower]:
    """Context manager that traces receptive fields; raises `InputError` for a model that cannot run."""
    with torch.no_grad(), frozen(model), _moving_windows(model), Follower() as follower:
        try:
            yield follower
        except (
            RuntimeError,
            ValueError,
            IndexError,
            TypeError,
            AssertionError,
            NotImplementedError,
            ArithmeticError,
            KeyError,
        ) as error:
            if isinstance(error, LayerError) or is_memory_error(error):
                raise
            shape = "x".join(map(str, input_shape))
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise InputError(
                f"{type(model).__name__} cannot run on an input of {shape} ({reason}); try another size"
            ) from error


def follow(layer: str, output: Tensor, follower: Follower, size: Sequence[int]) -> Trace:
    """Derive the trace of a layer from its output.

    Args:
        layer: name of the layer, for messages.
        output: what the layer returned.
        follower: the mode under which it ran.
        size: (H, W) of the input.

    Raises:
        LayerError: the output is not a map over the input.
    """
    if output.numel() == 0:
        shape = tuple(output.shape)
        raise LayerError(
            f"layer '{layer}' of shape {shape} is not a map over the input: it is empty; use a larger size"
        )
    state = follower.find(output)
    if state is None:
        raise LayerError(f"layer '{layer}' does not depend on the input; choose another")
    state = settled(state)
    if follower.reads:
        state = replace(state, field=state.field.unbounded("item"))
    layout = state.layout(output.shape)
    if layout is None and state.field.infinite and not state.spatial and output.ndim == len(size) + 2:
        # A grid made by global operators alone: the positions of its units are unknown.
        grid = tuple(output.shape[2:])
        axes = tuple(tiling(*pair) for pair in zip(grid, size, strict=True))
        state = State(replace(state.field, axes=axes), grid, None)
        layout = Layout(tuple(range(2, output.ndim)), grid, is_assumed=True)
    if layout is None and state.field.infinite and output.ndim == 2:
        # A vector, such as logits: one unit that represents the whole image.
        axes = tuple(tiling(1, length) for length in size)
        state, layout = State(replace(state.field, axes=axes), (1,) * len(size), None), Layout((), (1,) * len(size))
    if layout is None or 0 in layout.places:
        raise LayerError(
            f"layer '{layer}' of shape {tuple(output.shape)} is not a map over the input",
            remedy="choose a layer before positions are pooled, mixed into channels or put in an order that is not "
            "known (`erf.layers` lists them)",
        )
    if not all(layout.grid):
        raise LayerError(
            f"layer '{layer}' of shape {tuple(output.shape)} has no units; choose another, or a larger size"
        )
    positions = output.shape[layout.places[0]] if layout.is_tokens else math.prod(layout.grid)
    feature_shape = (output[0].numel() // positions, *layout.grid)
    return Trace(
        state.field,
        feature_shape,
        layout,
        follower.bytes,
        follower.operators,
        follower.alignment,
        reads=follower.reads,
    )


def theoretical_receptive_field(model: nn.Module, layer: str, input_shape: Sequence[int]) -> ReceptiveField:
    """Compute size, stride and offset of the theoretical receptive field of a layer's units, in pixels.

    Uses the recursion of Araujo, Norris, Sim (Distill 2019) over the operators of one forward pass, so that branches,
    dilation and padding are accounted for as they run. The size is infinite where an operator is global, or is not
    known to be local; `ReceptiveField.unbounded_by` names it. `erf.receptive_field` builds the network, projects one
    unit, and compares the field with gradients.

    Args:
        model: the network.
        layer: path of a module, or `output`.
        input_shape: (C, H, W) of an input.

    Raises:
        LayerError: the layer is unknown, is not called or called more than once, or yields no map.
        InputError: the model cannot run on an input of this shape.
    """
    return trace(model, [layer], input_shape)[layer].field
