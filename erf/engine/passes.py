"""Forward passes per image: over the whole image, or over windows that neighbouring units share."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count

from torch import nn

from erf.engine.settings import Settings
from erf.gradients.bands import Prefix, find_prefix
from erf.gradients.way import Way
from erf.gradients.windows import Spot, Window, find_windows, stretch, whole
from erf.network.inputs import Arguments
from erf.theory.tracing import Trace


@dataclass(frozen=True)
class Pass:
    """One forward pass: a window of the image, its targets, and the index of the ERF of each."""

    window: Window
    places: tuple[int, ...]
    """Index of the measured unit (tap) of each target; several targets of one tap are averaged."""
    prefix: Prefix | None = None
    """Local beginning of the network that is run in bands of rows; None where bands save too little memory."""

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(target.layer for target in self.window.targets))


def plan_passes(
    model: nn.Module, traces: Mapping[str, Trace], spots: Sequence[Spot], shape: Sequence[int], settings: Settings
) -> list[Pass]:
    """Group units that share a window and its forward pass, so that the total work is least.

    Args:
        model: the network.
        traces: trace of each layer for images of `shape`.
        spots: the (layer, unit) pairs.
        shape: (C, H, W) of an image.
        settings: settings of the run.

    Returns:
        The passes; one over the whole image where windows are disabled or do not apply.
    """
    size = shape[1:]
    if settings.moves or not settings.window or settings.arguments != Arguments() or settings.method != "gradient":
        return whole_passes(traces, spots, shape, settings)
    groups = min(_groupings(traces, spots, size), key=lambda groups: _work(groups, traces, spots, size))
    windows = find_windows(model, traces, [[spots[place] for place in group] for group in groups], shape)
    return [Pass(window, tuple(group)) for window, group in zip(windows, groups, strict=True)]


def whole_passes(
    traces: Mapping[str, Trace], spots: Sequence[Spot], shape: Sequence[int], settings: Settings
) -> list[Pass]:
    """Plan one pass over the whole image for all units; units of a layer share one ERF where maps are aligned."""
    layers = [*traces]
    places = [layers.index(layer) for layer, _ in spots] if settings.moves else range(len(spots))
    return [Pass(whole(shape[1:], traces, spots), tuple(places))]


def with_bands(model: nn.Module, passes: Sequence[Pass], channels: int) -> list[Pass]:
    """Return the passes with the beginning of the network that is worth running in bands.

    Args:
        model: the network.
        passes: passes over windows of an image.
        channels: number of channels of an image.
    """
    shapes = [(channels, *each.window.shape) for each in passes]
    prefixes: dict[object, Prefix | None] = {}
    for each, shape in zip(passes, shapes, strict=True):
        if (each.layers, shape) not in prefixes:
            prefixes[each.layers, shape] = find_prefix(model, each.layers, shape)
    return [replace(each, prefix=prefixes[each.layers, shape]) for each, shape in zip(passes, shapes, strict=True)]


def in_way(way: Way, fast: Sequence[Pass], whole: Sequence[Pass]) -> list[Pass]:
    """Select the passes of a way: windows or whole images, with or without bands."""
    passes = fast if way.windows else whole
    return [each if way.bands else replace(each, prefix=None) for each in passes]


_BACKWARD = 1.5
"""Cost of a backward pass, relative to a forward pass over the same window."""


def _groupings(traces: Mapping[str, Trace], spots: Sequence[Spot], size: Sequence[int]) -> Iterator[list[list[int]]]:
    """Yield ever finer groupings of neighbouring units: one group, one per quarter of the image, …, single units."""
    for parts in count(1):
        groups: dict[tuple[int, ...], list[int]] = {}
        for place, (layer, unit) in enumerate(spots):
            centers = traces[layer].field.center(unit)
            cell = tuple(int(center * parts // length) for center, length in zip(centers, size, strict=True))
            groups.setdefault(cell, []).append(place)
        yield list(groups.values())
        if len(groups) == len(spots) or parts > max(size):
            return


def _work(
    groups: Sequence[Sequence[int]], traces: Mapping[str, Trace], spots: Sequence[Spot], size: Sequence[int]
) -> float:
    """Return the cost of all passes, in units of a forward pass over the whole image."""
    return sum(
        _share([spots[place] for place in group], traces, size) * (1 + _BACKWARD * len(group)) for group in groups
    )


def _share(spots: Sequence[Spot], traces: Mapping[str, Trace], size: Sequence[int]) -> float:
    """Share of the image's pixels in the window that geometry gives to some units."""
    fields = [traces[layer].field for layer, _ in spots]
    if any(field.kind != "finite" for field in fields):
        return 1.0
    share = 1.0
    for axis, length in enumerate(size):
        boxes = [field.axes[axis].box(unit[axis], length) for field, (_, unit) in zip(fields, spots, strict=True)]
        first, last = stretch(boxes, max(traced.alignment[axis] for traced in traces.values()), length)
        share *= (last - first) / length
    return share
