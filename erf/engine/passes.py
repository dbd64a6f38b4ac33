"""Forward passes per image: over the whole image, or over crops that neighbouring units share."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

from torch import nn

from erf.engine.settings import Settings
from erf.engine.units import MeasuredUnit
from erf.gradients.bands import Prefix, find_prefix
from erf.gradients.crops import Crop, find_crops, stretch, whole
from erf.gradients.way import Way
from erf.network.inputs import Arguments

_BACKWARD = 1.5
"""Cost of a backward pass, relative to a forward pass over the same crop."""


@dataclass(frozen=True)
class Pass:
    """One forward pass: a crop of the image, its targets, and the measured unit of each."""

    crop: Crop
    units: tuple[MeasuredUnit, ...]
    """Measured unit of each target; several targets of one unit are averaged."""
    prefix: Prefix | None = None
    """Local beginning of the network that is run in bands of rows; None where bands save too little memory."""

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(target.layer for target in self.crop.targets))


@dataclass(frozen=True)
class PassPlan:
    """Passes over crops and passes over whole images; each way of computing uses some of them."""

    fast: tuple[Pass, ...]
    whole: tuple[Pass, ...]

    @classmethod
    def of(
        cls, model: nn.Module, units: Sequence[MeasuredUnit], shape: Sequence[int], settings: Settings
    ) -> "PassPlan":
        """Plan the passes; arguments are those of `plan_passes`."""
        return cls(plan_passes(model, units, shape, settings), (whole_pass(units, shape),))

    def in_way(self, way: Way) -> tuple[Pass, ...]:
        """Select the passes of a way: crops or whole images, with or without bands."""
        passes = self.fast if way.crops else self.whole
        return passes if way.bands else tuple(replace(each, prefix=None) for each in passes)

    def with_bands(self, model: nn.Module, channels: int) -> "PassPlan":
        """Return the plan whose fast passes run the beginning of the network in bands; see `with_bands`.

        Without crops, the passes over the whole image are the fast ones.
        """
        if self.has_crops:
            return replace(self, fast=with_bands(model, self.fast, channels))
        whole = with_bands(model, self.whole, channels)
        return PassPlan(whole, whole)

    @property
    def has_crops(self) -> bool:
        return any(each.crop.shape != self.whole[0].crop.shape for each in self.fast)

    @property
    def has_bands(self) -> bool:
        return any(each.prefix for each in self.fast)


def plan_passes(
    model: nn.Module, units: Sequence[MeasuredUnit], shape: Sequence[int], settings: Settings
) -> tuple[Pass, ...]:
    """Group units that share a crop and its forward pass, so that the total work is least.

    Args:
        model: the network.
        units: the measured units.
        shape: (C, H, W) of an image.
        settings: settings of the run.

    Returns:
        The passes; one over the whole image where crops are disabled or do not apply.
    """
    is_plain = settings.arguments == Arguments() and settings.method == "gradient" and not settings.window
    if settings.moves or not settings.crop or not is_plain:
        return (whole_pass(units, shape),)
    groups = min(_groupings(units, shape[1:]), key=lambda groups: _work(groups, shape[1:]))
    traces = {each.layer: each.trace for each in units}
    crops = find_crops(model, traces, [[(each.layer, each.unit) for each in group] for group in groups], shape)
    return tuple(Pass(crop, tuple(group)) for crop, group in zip(crops, groups, strict=True))


def whole_pass(units: Sequence[MeasuredUnit], shape: Sequence[int]) -> Pass:
    """Plan one pass over the whole image (C, H, W) for all units, and for all those that are aligned on them."""
    traces = {each.layer: each.trace for each in units}
    pairs = [(each, source) for each in units for source in each.sources]
    crop = whole(shape[1:], traces, [(each.layer, source) for each, source in pairs])
    return Pass(crop, tuple(each for each, _ in pairs))


def with_bands(model: nn.Module, passes: Sequence[Pass], channels: int) -> tuple[Pass, ...]:
    """Return the passes with the beginning of the network that is worth running in bands.

    Args:
        model: the network.
        passes: passes over crops of an image.
        channels: number of channels of an image.
    """
    prefixes: dict[object, Prefix | None] = {}
    banded = []
    for each in passes:
        shape = (channels, *each.crop.shape)
        if (each.layers, shape) not in prefixes:
            prefixes[each.layers, shape] = find_prefix(model, each.layers, shape)
        banded.append(replace(each, prefix=prefixes[each.layers, shape]))
    return tuple(banded)


Groups = list[list[MeasuredUnit]]


def _groupings(units: Sequence[MeasuredUnit], size: Sequence[int]) -> Iterator[Groups]:
    """Yield ever finer groupings of neighbouring units: one group, one per quarter of the image, …, single units."""
    for parts in count(1):
        groups: dict[tuple[int, ...], list[MeasuredUnit]] = {}
        for each in units:
            centers = each.trace.field.center(each.unit)
            part = tuple(int(center * parts // length) for center, length in zip(centers, size, strict=True))
            groups.setdefault(part, []).append(each)
        yield list(groups.values())
        if len(groups) == len(units) or parts > max(size):
            return


def _work(groups: Groups, size: Sequence[int]) -> float:
    """Return the cost of all passes, in units of a forward pass over the whole image."""
    traces = [each.trace for group in groups for each in group]
    alignment = [max(traced.alignment[axis] for traced in traces) for axis in range(2)]
    return sum(_share(group, alignment, size) * (1 + _BACKWARD * len(group)) for group in groups)


def _share(units: Sequence[MeasuredUnit], alignment: Sequence[int], size: Sequence[int]) -> float:
    """Return the share of the image's pixels in the crop that geometry gives to some units."""
    if any(each.trace.field.kind != "finite" for each in units):
        return 1.0
    share = 1.0
    for axis, length in enumerate(size):
        boxes = [each.trace.field.axes[axis].box(each.unit[axis], length) for each in units]
        first, last = stretch(boxes, alignment[axis], length)
        share *= (last - first) / length
    return share
