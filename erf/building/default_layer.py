"""Choice of the layer that is measured where none is named."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import nn

from erf.errors import LayerError
from erf.gradients.cancellation import CANCELLED, channels_cancel
from erf.gradients.crops import find_crop, whole
from erf.gradients.units import center_unit
from erf.network.devices import available_memory
from erf.network.inputs import Arguments
from erf.network.modes import frozen
from erf.theory.layers import MappedLayer, default_candidates
from erf.theory.tracing import blank

_TRIED = 32
"""Most layers that are tried; in a network with norms on the main path, those of a whole block cancel."""


@dataclass(frozen=True)
class DefaultLayer:
    """The default layer of a network, and the layers that were passed over because their channels cancel."""

    name: str
    passed_over: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What is taken, and why."""
        taken = f"layer '{self.name}' is taken, the last map of several units"
        if not self.passed_over:
            return taken
        return f"{taken} before '{self.passed_over[0]}', where {CANCELLED}"


def choose_default(
    model: nn.Module, points: Sequence[MappedLayer], input_shape: Sequence[int], arguments: Arguments
) -> DefaultLayer:
    """Choose the last map of several units whose channels do not cancel; the very last where all of them do.

    Args:
        model: the network.
        points: its mapped layers.
        input_shape: (C, H, W) of all inputs together.
        arguments: how the network takes its inputs.

    Raises:
        LayerError: no layer is a map of several units.
    """
    candidates = default_candidates(points)[:_TRIED]
    cancelling = takewhile(lambda point: _cancels(model, point, input_shape, arguments), candidates)
    passed_over = tuple(point.name for point in cancelling)
    if len(passed_over) == len(candidates):
        return DefaultLayer(candidates[0].name)  # the run refuses it
    return DefaultLayer(candidates[len(passed_over)].name, passed_over)


def _cancels(model: nn.Module, point: MappedLayer, input_shape: Sequence[int], arguments: Arguments) -> bool:
    """Test the central unit on noise; False where that is not possible, so that the run tells why."""
    traced, like = point.trace, blank(model, ())
    if 2 * traced.activation_bytes > available_memory(like.device):
        return False
    unit = (point.name, center_unit(traced.feature_shape[1:]))
    traces = {point.name: traced}
    noise = torch.randn((1, *input_shape), generator=torch.Generator().manual_seed(0)).to(like)
    try:
        is_plain = arguments == Arguments()
        crop = find_crop(model, traces, [unit], input_shape) if is_plain else whole(input_shape[1:], traces, [unit])
        with frozen(model):
            inputs = crop.cut(noise).contiguous()
            (cancel,) = channels_cancel(model, inputs, crop.targets, arguments)
            return cancel
    except (LayerError, RuntimeError):
        return False
