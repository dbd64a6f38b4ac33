"""What goes through the network for each image: the image, or a window of it for all units, or one for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from erf.arguments import Arguments
from erf.layers import Unit
from erf.settings import Settings
from erf.tracing import Trace
from erf.windows import Spot, Window, find_window, whole


@dataclass(frozen=True)
class Pass:
    """A window of the image that goes through the network once, and the taps of its targets."""

    window: Window
    places: tuple[int, ...]
    """By target, the number of its tap; several targets of one tap are averaged."""


def plan_passes(
    model: nn.Module, traces: Mapping[str, Trace], spots: Sequence[Spot], shape: Sequence[int], settings: Settings
) -> list[Pass]:
    """What goes through the network: one window for all units or one for each, whichever is less work."""
    size, everything = shape[1:], [*range(len(spots))]
    if settings.moves:
        layers = [*traces]
        return [Pass(whole(size, traces, spots), tuple(layers.index(layer) for layer, _ in spots))]
    plain = settings.window and settings.arguments == Arguments() and settings.method == "gradient"
    if not plain:
        return [Pass(whole(size, traces, spots), tuple(everything))]
    together = find_window(model, traces, spots, shape)
    if len(spots) == 1:
        return [Pass(together, (0,))]
    # A backward pass takes about as long as the forward pass, and goes over the whole window.
    shared = together.share(size) * (1 + len(spots))
    bound = sum(2 * _least_share(traces[layer], unit, size) for layer, unit in spots)
    if bound >= shared:
        return [Pass(together, tuple(everything))]
    single = [find_window(model, traces, [spot], shape) for spot in spots]
    if sum(2 * each.share(size) for each in single) >= shared:
        return [Pass(together, tuple(everything))]
    return [Pass(window, (place,)) for place, window in enumerate(single)]


def _least_share(traced: Trace, unit: Unit, size: Sequence[int]) -> float:
    """Of the image, what a unit sees by geometry."""
    if traced.field.kind != "finite":
        return 1.0
    share = 1.0
    for axis, index, length in zip(traced.field.axes, unit, size, strict=True):
        first, last = axis.box(index, length)
        share *= (last - first) / length
    return share
