"""Layers of a network that yield maps, with the theoretical receptive field of their units."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from erf.errors import LayerError
from erf.network.inputs import Arrange, alone
from erf.network.layers import OUTPUT, outputs
from erf.theory.tracing import Trace, blank, follow, random_state, sourced, watched

_BLOCKS = 2
"""Depth of modules within modules at which networks have their stages and blocks."""


@dataclass(frozen=True)
class MappedLayer:
    """A layer of a network that yields a map."""

    name: str
    kind: str
    """Class of the module."""
    output_shape: tuple[int, ...]
    """Shape of the module's output for one image."""
    trace: Trace
    calls: int
    """Number of calls in a forward pass; a layer that is called more than once cannot be measured."""

    @property
    def depth(self) -> int:
        """Nesting depth of the module; 0 for the network's own output."""
        path = self.name.split(":")[0]
        return 0 if path == OUTPUT else path.count(".") + 1

    @property
    def is_norm(self) -> bool:
        """Whether the layer is a layer norm, after which, if untrained, the channels of a unit sum to zero."""
        return "LayerNorm" in self.kind or "RMSNorm" in self.kind

    @property
    def suits(self) -> bool:
        """Whether it makes a good default: a map of several units, of a module that does something."""
        several = prod(self.trace.feature_shape[1:]) > 1
        return several and self.calls == 1 and not self.is_norm and not self.kind.startswith(("Identity", "Drop"))


def list_layers(model: nn.Module, input_shape: Sequence[int], arrange: Arrange = alone) -> list[MappedLayer]:
    """List the layers of a module that yield a map of an input (C, H, W), in the order in which they return.

    `erf.layers` builds the network, and shows them as a table.
    """
    calls: dict[str, int] = {}
    found: dict[str, MappedLayer] = {}

    def hook(path: str) -> Any:
        def look(module: nn.Module, args: Any, output: Any) -> None:
            calls[path] = calls.get(path, 0) + 1
            for key, tensor in outputs(output).items():
                traced = _traced(f"{path}{key}", tensor)
                if traced is not None and calls[path] == 1:
                    found[f"{path}{key}"] = MappedLayer(
                        f"{path}{key}", type(module).__name__, tuple(tensor.shape), traced, 1
                    )

        return look

    def _traced(name: str, tensor: Tensor) -> Trace | None:
        try:
            return follow(name, tensor, follower, sources[0].shape[2:])
        except LayerError:
            return None

    handles = [
        module.register_forward_hook(hook(path or OUTPUT))
        for path, module in model.named_modules()
        if path or not hasattr(model, OUTPUT)
    ]
    sources = sourced(arrange(blank(model, input_shape)))
    before = random_state(sources[0].device)
    try:
        with watched(model, input_shape) as follower, torch.no_grad():
            model(*sources)
    finally:
        for handle in handles:
            handle.remove()
    is_random = not torch.equal(before, random_state(sources[0].device))
    return [
        replace(point, calls=calls[point.name.split(":")[0]], trace=replace(point.trace, random=is_random))
        for point in found.values()
    ]


def default_candidates(points: Sequence[MappedLayer]) -> list[MappedLayer]:
    """Layers that are a map of several units: the default layer, then all that return before it, the last one first.

    Raises:
        LayerError: there is none.
    """
    suits = [point for point in points if point.suits]
    # Deeper ones are parts of blocks, unless there is nothing else.
    suitable = [point for point in suits if point.depth <= _BLOCKS] or suits
    if not suitable:
        raise LayerError("no layer of the network yields a map over the input; expected one before global pooling")
    # Of several maps that the network returns, the first is the main one.
    heads = [point for point in suitable if point.name.startswith(f"{OUTPUT}:")]
    last = heads[0] if suitable[-1] in heads else suitable[-1]
    return suits[suits.index(last) :: -1]


def match_layers(points: Sequence[MappedLayer], pattern: str) -> list[str]:
    """Names of maps that match a shell-style pattern; raises `LayerError` where none does."""
    maps = [point for point in points if point.calls == 1 and point.trace.layout.places]
    names = [point.name for point in maps if fnmatch.fnmatchcase(point.name, pattern)]
    if not names:
        raise LayerError(f"no layer matches '{pattern}'", remedy="`erf.layers` lists them")
    return names
