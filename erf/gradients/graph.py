"""Graph of one image that is kept, so that each further unit takes a backward pass only.

Autograd's graph of a forward pass holds what all backward passes need. It is entered at the edge through which a layer
has returned its output, so that a network may change that output in place afterwards.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from erf.errors import InterruptedRunError, NoGradientError
from erf.gradients.autograd import Target, in_place_errors
from erf.network.inputs import Arrange, alone
from erf.network.layers import forward_to

Cancelled = Callable[[], bool]
"""Function that tells whether a result is no longer wanted."""


class CancelledError(InterruptedRunError):
    """Ends a pass whose result is no longer wanted."""

    def __init__(self) -> None:
        super().__init__("cancelled; the result is no longer wanted")


def never() -> bool:
    """Return False: a pass that is not cancelled."""
    return False


@contextmanager
def stoppable(model: nn.Module, is_cancelled: Cancelled) -> Iterator[None]:
    """Context manager that ends a forward pass with a `CancelledError` at the next module, once it is cancelled."""

    def look(*_: Any) -> None:
        if is_cancelled():
            raise CancelledError

    handles = [] if is_cancelled is never else [each.register_forward_pre_hook(look) for each in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class _Entry:
    """Output of a layer, and the edge by which the graph is entered there."""

    edge: GradientEdge
    output: Tensor
    """Without its graph."""
    version: int
    """Number of changes in place when the layer returned."""

    @classmethod
    def of(cls, output: Tensor) -> "_Entry | None":
        if not output.requires_grad:
            return None
        return cls(get_gradient_edge(output), output.detach(), output._version)

    @property
    def is_unchanged(self) -> bool:
        return self.output._version == self.version


class ImageGraph:
    """Forward pass of one image, whose graph is kept.

    Args:
        model: the network, used as it is: create and use the graph within `Way.applied`.
        inputs: (1, C, H, W).
        layers: the layers whose units can be asked for.
        arrange: builds the network's arguments from the inputs.

    Raises:
        LayerError: a layer is unknown or not called.
    """

    def __init__(self, model: nn.Module, inputs: Tensor, layers: Sequence[str], arrange: Arrange = alone) -> None:
        self._is_cancelled: Cancelled = never
        with torch.enable_grad():
            self._source = inputs.detach().requires_grad_()
            # The network may change its input in place, which is allowed on a copy only.
            arguments = arrange(self._source.clone())
            self._entries = forward_to(model, layers, arguments, lambda _, output: _Entry.of(output))
        for entry in self._entries.values():
            if entry is not None:
                entry.edge.node.register_prehook(self._stop_if_cancelled)

    def _stop_if_cancelled(self, _gradients: tuple[Tensor, ...]) -> None:
        if self._is_cancelled():
            raise CancelledError

    def gradient(self, target: Target, is_cancelled: Cancelled = never) -> Tensor:
        """Compute the gradient (C, H, W) of a unit with respect to the image.

        Args:
            target: a unit of one of the layers, without an activation.
            is_cancelled: asked on the way, at each layer.

        Raises:
            NoGradientError: no gradient reaches the input.
            LayerError: a tensor was changed in place.
            CancelledError: `is_cancelled` returned True.
        """
        entry = self._entries[target.layer]
        gradient = None
        if entry is not None:
            self._is_cancelled = is_cancelled
            try:
                with in_place_errors():
                    (gradient,) = torch.autograd.grad(
                        [entry.edge],
                        [self._source],
                        [_seed(target, entry.output)],
                        retain_graph=True,
                        allow_unused=True,
                    )
            finally:
                self._is_cancelled = never
        if gradient is None:
            raise NoGradientError(f"layer '{target.layer}' passes no gradient to the input", target.layer)
        return gradient[0]

    @torch.no_grad()
    def map(self, target: Target) -> Tensor | None:
        """Return the map (1, C, *axes) of a unit's layer; None where the network has changed it since."""
        entry = self._entries[target.layer]
        return target.map(entry.output) if entry is not None and entry.is_unchanged else None

    def value(self, target: Target) -> Tensor | None:
        """Return the values (1, C) of a unit; None where the network has changed the layer's output since."""
        maps = self.map(target)
        index: tuple[Any, ...] = (..., *target.units[0])
        return None if maps is None else maps[index].clone()


def _seed(target: Target, output: Tensor) -> Tensor:
    """Return the gradient of the target's total, which is linear, with respect to the layer's output."""
    with torch.enable_grad():
        blank = torch.zeros_like(output, requires_grad=True)
        (seed,) = torch.autograd.grad(target.totals(blank).sum(), blank)
    return seed
