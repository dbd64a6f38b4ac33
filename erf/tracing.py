"""The theoretical receptive field of a layer, followed through the operators that the model runs.

They are watched during one forward pass of a blank image, without gradients: it is real, so it works for any model, and
it is faster than a pass on shape-only tensors, which would import PyTorch's compiler. Each operator is either known
to be local (windows, pointwise, channel-wise) or is taken to reach everywhere: an unknown operator can make the field
too large, never too small.
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

from erf.devices import is_memory_error
from erf.errors import InputError, LayerError
from erf.geometry import AxisField, ReceptiveField
from erf.gradients import Arrange, alone, frozen
from erf.layers import Layout, forward_to
from erf.operators import SHAPE_ONLY, Seen, joined, settled, slide, step, written_into


@dataclass(frozen=True)
class Trace:
    """What a forward pass as far as a layer tells."""

    field: ReceptiveField
    feature_shape: tuple[int, ...]
    """(channels, height, width) of the layer's map."""
    layout: Layout
    """How the layer's output is read as this map."""
    activation_bytes: int
    """Bytes of all maps on the way, per image: what autograd keeps at most."""
    depth: int
    """How many operators ran on what comes from the input before the layer returned."""
    alignment: tuple[int, int] = (1, 1)
    """(y, x): moved by multiples of so many pixels, the input meets every operator on the way as before."""
    random: bool = False
    """Whether the network draws random numbers in eval mode."""
    reads: bool = False
    """Whether the program takes numbers out of maps, as for an `if`: then all of the input may decide what runs."""


class Follower(TorchDispatchMode):
    """Notes on each tensor that comes from the input what its positions have seen."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0
        self.operators = 0
        self.alignment = (1, 1)
        self.reads = False
        self._written: dict[int, _Written] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False spares the import of PyTorch's compiler (2 s, 150 MB), which is never used here."""
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = [seen for leaf in tree_leaves((args, kwargs)) if (seen := self.find(leaf)) is not None]
        result = func(*args, **(kwargs or {}))
        if inputs and func.overloadpacket.__name__ not in SHAPE_ONLY:
            self.operators += 1
            for output in tree_leaves(result):
                if isinstance(output, bool | int | float | complex):
                    self.reads = True
                elif isinstance(output, Tensor) and output.numel():  # what holds nothing has seen nothing
                    if self.find(output) is None:
                        self.bytes += 0 if func.is_view else output.nbytes
                    seen = step(func, args, kwargs or {}, self.find, inputs, output)
                    self._align(seen.field)
                    if any(output is changed for changed in _changed(func, args, kwargs or {})):
                        self._write(func.overloadpacket.__name__, output, seen)
                    self._note(output, seen)
        return result

    def _note(self, tensor: Tensor, seen: Seen) -> None:
        note(tensor, seen, self.operators)

    def find(self, value: Any) -> Seen | None:
        """What a tensor has seen; it may have been written into through a view of it, or of the same."""
        if not isinstance(value, Tensor):
            return None
        own = _find(value)
        written = self._written.get(_storage(value)) if self._written else None
        if written is None or (own is not None and value._erf_when >= written.when):  # type: ignore[attr-defined]
            return own
        # A constant may lie where a tensor that is gone was written into.
        return written.seen if own is not None or written.whole is not None else None

    def _write(self, name: str, output: Tensor, seen: Seen) -> None:
        """Other views of a tensor that is written into see what is written, somewhere; the whole of it knows where."""
        base = output if output._base is None else output._base
        lost = replace(seen, field=seen.field.unbounded(f"{name} into a part"), dims=None)
        if base is not output:
            before = self.find(base)
            after = written_into(base, before, output, seen) or lost
            self._note(base, after)
            lost = joined(name, [lost, after], base.shape)
            lost = replace(lost, dims=None)
        # What nothing was known of is kept, with its views, so that nothing else comes to lie where it is.
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
    """The tensor, where views of it may have been made before anything was known of it."""
    seen: Seen
    """What views have seen that were made before."""
    when: int


def _changed(func: Any, args: Any, kwargs: Any) -> list[Any]:
    """Arguments that an operator writes into."""
    named = zip(func._schema.arguments, [*args, *[None] * len(func._schema.arguments)], strict=False)
    return [
        kwargs.get(argument.name, value)
        for argument, value in named
        if argument.alias_info is not None and argument.alias_info.is_write
    ]


def _storage(tensor: Tensor) -> int:
    """Which storage a tensor views; on the meta device storages have no addresses of data."""
    return int(tensor.untyped_storage()._cdata) if tensor.layout is torch.strided else 0


def note(tensor: Tensor, seen: Seen, when: int = 0) -> None:
    """Note what a tensor has seen, and after how many operators."""
    tensor._erf_seen, tensor._erf_when = seen, when  # type: ignore[attr-defined]


def _find(value: Any) -> Seen | None:
    return getattr(value, "_erf_seen", None)


@contextmanager
def _moving_windows(model: nn.Module) -> Iterator[None]:
    """Modules that have a `sliding_window` (kernel, stride, padding, dilation) move its taps as the input tells them.

    Their own operators hide the window, so what such a module returns is noted when it is done.
    """

    def renew(module: Any, args: Any, output: Tensor) -> None:
        seen = _find(args[0])
        if seen is not None:
            slid = slide(seen, module.sliding_window, output)
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
    """Follow the receptive fields of layers for an input of shape (C, H, W), on the model's device.

    Raises `LayerError` where a layer is unknown, is not called or called again, or yields no map.
    """

    def look(layer: str, output: Tensor) -> Trace:
        return follow(layer, output, follower, sources[0].shape[2:])

    sources = sourced(arrange(blank(model, input_shape)))
    before = _random_state(sources[0].device)
    with watched(model, input_shape) as follower:
        found = forward_to(model, layers, sources, look, once=True)
    is_random = not torch.equal(before, _random_state(sources[0].device))
    return {layer: replace(traced, random=is_random) for layer, traced in found.items()}


def _random_state(device: torch.device) -> Tensor:
    """That of the generators from which a network on the device draws."""
    states = [torch.get_rng_state()] + ([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])
    return torch.cat(states)


def sourced(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Inputs (N, C, *axes) of a network, each of whose pixels has seen itself."""
    for source in inputs:
        note(source, Seen.source(source.shape))
    return inputs


def blank(model: nn.Module, input_shape: Sequence[int]) -> Tensor:
    """Zeros for one input of shape (C, H, W), as the model's parameters are."""
    parameter = next(model.parameters(), torch.empty(0))
    return torch.zeros((1, *input_shape), dtype=parameter.dtype, device=parameter.device)


@contextmanager
def watched(model: nn.Module, input_shape: Sequence[int]) -> Iterator[Follower]:
    """Within, the fields of tensors are followed; a model that cannot run raises `InputError`."""
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
    """What is known of a layer from its output, for an input of (H, W) `size`; raises `LayerError` for no map."""
    if output.numel() == 0:
        shape = tuple(output.shape)
        raise LayerError(
            f"layer '{layer}' of shape {shape} is not a map over the input: it is empty; use a larger size"
        )
    seen = follower.find(output)
    if seen is None:
        raise LayerError(f"layer '{layer}' does not depend on the input; choose another")
    seen = settled(seen)
    if follower.reads:
        seen = replace(seen, field=seen.field.unbounded("item"))
    layout = seen.layout(output.shape)
    if layout is None and seen.field.infinite and not seen.spatial and output.ndim == len(size) + 2:
        # A grid made by global operators alone: nothing tells where its units lie.
        grid = tuple(output.shape[2:])
        axes = tuple(AxisField.tiling(*pair) for pair in zip(grid, size, strict=True))
        seen = Seen(replace(seen.field, axes=axes), grid, None)
        layout = Layout(tuple(range(2, output.ndim)), grid, is_assumed=True)
    if layout is None and seen.field.infinite and output.ndim == 2:
        # A vector, such as logits: one unit that stands for the whole image.
        axes = tuple(AxisField.tiling(1, length) for length in size)
        seen, layout = Seen(replace(seen.field, axes=axes), (1,) * len(size), None), Layout((), (1,) * len(size))
    if layout is None or 0 in layout.places:
        raise LayerError(
            f"layer '{layer}' of shape {tuple(output.shape)} is not a map over the input; choose a layer before "
            "positions are pooled, mixed into channels or put in an order that is not known (`erf layers` lists them)"
        )
    if not all(layout.grid):
        raise LayerError(
            f"layer '{layer}' of shape {tuple(output.shape)} has no units; choose another, or a larger size"
        )
    positions = output.shape[layout.places[0]] if layout.is_tokens else math.prod(layout.grid)
    feature_shape = (output[0].numel() // positions, *layout.grid)
    return Trace(
        seen.field,
        feature_shape,
        layout,
        follower.bytes,
        follower.operators,
        follower.alignment,
        reads=follower.reads,
    )


def theoretical_receptive_field(model: nn.Module, layer: str, input_shape: Sequence[int]) -> ReceptiveField:
    """Size, stride and offset of what the units of a layer see of an input of shape (C, H, W), in pixels.

    Recursion of Araujo, Norris, Sim (Distill 2019), taken over the operators that one forward pass runs, so that
    branches, dilation and padding count as they run. The size is infinite where an operator is global, or is not
    known to be local; `ReceptiveField.unbounded_by` names it.
    """
    return trace(model, [layer], input_shape)[layer].field
