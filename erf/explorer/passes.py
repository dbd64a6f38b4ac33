"""Passes of an image through a network, for one unit at a time: the fastest way to the next gradient.

The graph of the last image is kept if it fits into the memory that is allowed; the next gradient then takes a backward
pass only. Where the theoretical field is small, two passes on a crop are faster still.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from erf.box import Box
from erf.building import Network
from erf.engine.seeds import Seeds
from erf.engine.self_check.trial import NETWORK_ERRORS
from erf.gradients.autograd import Target, unit_values
from erf.gradients.cancellation import channels_cancel
from erf.gradients.crops import are_alike, crop_of_unit
from erf.gradients.graph import Cancelled, ImageGraph, never, stoppable
from erf.gradients.saved_tensors import saved_on_disk
from erf.gradients.way import PLAIN, Way
from erf.images import Sample
from erf.network.devices import is_memory_error, memory_layout
from erf.theory.layers import MappedLayer
from erf.theory.tracing import blank

_CROP = 0.3
"""Share of the image below which two passes on a crop are faster than a backward pass on the whole image."""

_CROP_ALONE = 0.9
"""The same where no graph is kept, so that the whole image takes two passes as well."""

_CHANGE = 0.01
"""Change of a sum over channels between units, relative to that of absolute values, from which it is no constant."""


@dataclass(frozen=True)
class Gradient:
    """Gradient of a unit with respect to a part of an image."""

    values: Tensor
    """(C, h, w)."""
    box: Box[int]
    """The part, outside of which the gradient is zero."""
    way: str
    """How it was computed, in words."""


@dataclass
class Passes:
    """Passes through one network; only one thread may use them."""

    network: Network
    layers: Mapping[str, MappedLayer]
    """Layers whose units can be asked for, in the order in which they return."""
    device: torch.device
    memory: int
    """Bytes that a kept graph may take."""
    seed: int = 0
    is_ended: Cancelled = never
    """Asked at each module: ends also those passes that a newer request is to use, such as that of the kept graph."""
    _graph: tuple[int, ImageGraph] | None = None
    """Number of the image, and its graph."""

    def gradient(self, target: Target, sample: Sample, is_cancelled: Cancelled = never) -> Gradient:
        """Compute the gradient of a unit in the fastest way.

        Args:
            target: the unit.
            sample: the image.
            is_cancelled: asked between layers.

        Raises:
            LayerError: no gradient reaches the image, or a tensor was changed in place.
            CancelledError: the gradient is no longer wanted.
        """
        graph = self._kept(sample) if self._fits else None
        try:
            found = self._on_crop(target, sample, graph, is_cancelled)
        except NETWORK_ERRORS as error:  # the crop may be smaller than a kernel, or than an index that is fixed
            if is_memory_error(error):
                raise
            found = None
        if found is not None:
            return found
        way = "backward pass through the kept graph" if graph else "whole image"
        with self._running(self._way, sample):
            if graph is None:
                graph = ImageGraph(self.network.model, self.inputs(sample), [target.layer], self.network.arguments)
            return Gradient(graph.gradient(target, is_cancelled), self._frame, way)

    def plain(self, target: Target, sample: Sample, is_cancelled: Cancelled = never) -> Gradient:
        """Compute the gradient of a unit in the plain way; arguments and errors are those of `gradient`."""
        model, names = self.network.model, list(self.layers)
        until = names[: names.index(target.layer) + 1]  # at each of them, a backward pass can end
        place = nullcontext() if 2 * self._needed <= self.memory else saved_on_disk()
        with self._running(PLAIN, sample), place, stoppable(model, is_cancelled):
            graph = ImageGraph(model, self.inputs(sample), until, self.network.arguments)
            return Gradient(graph.gradient(target, is_cancelled), self._frame, PLAIN.description)

    def cancels(self, target: Target, sample: Sample) -> bool:
        """Whether the channels of a layer sum to a constant; two passes, unless the map shows that they do not."""
        maps = self._kept(sample).map(target) if self._fits else None
        if maps is not None and _sums_vary(maps):
            return False
        with self._running(self._way, sample):
            return channels_cancel(self.network.model, self.inputs(sample), [target], self.network.arguments)[0]

    def inputs(self, sample: Sample) -> Tensor:
        """Return the pixels (1, C, H, W) of an image on the device."""
        return torch.from_numpy(sample.pixels)[None].to(self.device, self.like.dtype)

    def signs(self, sample: Sample, channels: int) -> Tensor:
        """Return the random sign (1, C) of each channel."""
        return self._seeds.signs(sample.image, channels, 0)[None]

    def _on_crop(
        self, target: Target, sample: Sample, graph: ImageGraph | None, is_cancelled: Cancelled
    ) -> Gradient | None:
        """Compute the gradient on a crop; None where there is no smaller one, or the unit has another value in it."""
        traced, (unit,), model = self.layers[target.layer].trace, target.units, self.network.model
        crop = None if self.is_random else crop_of_unit(traced, target.layer, unit, self.network.size)
        if crop is None or crop.share(self.network.size) > (_CROP if graph else _CROP_ALONE):
            return None
        inside = replace(crop.targets[0], weights=target.weights)
        if min(inside.units[0]) < 0:  # an index that counts from the end
            return None
        with self._running(self._way, sample):
            inputs = self.inputs(sample)
            value = graph.value(target) if graph else unit_values(model, inputs, [target], self.network.arguments)[0]
            part = ImageGraph(model, crop.cut(inputs).contiguous(), [target.layer], self.network.arguments)
            own = part.value(inside)
            if value is None or own is None or not are_alike(own, value):
                return None
            height, width = crop.shape
            return Gradient(part.gradient(inside, is_cancelled), crop.box, f"crop of {height}x{width} px")

    def _kept(self, sample: Sample) -> ImageGraph:
        """Return the graph of an image; the one before is given up first."""
        number = sample.image.number
        if self._graph is None or self._graph[0] != number:
            self._graph = None
            with self._running(self._way, sample):
                graph = ImageGraph(self.network.model, self.inputs(sample), [*self.layers], self.network.arguments)
            self._graph = number, graph
        return self._graph[1]

    @contextmanager
    def _running(self, way: Way, sample: Sample) -> Iterator[None]:
        model = self.network.model
        with way.applied(model, self.device), self._seeds.applied(sample.image, 0), stoppable(model, self.is_ended):
            yield

    @cached_property
    def like(self) -> Tensor:
        """A tensor with the dtype and device of the network's parameters."""
        return blank(self.network.model, ())

    @cached_property
    def is_random(self) -> bool:
        """Whether the network draws random numbers, or reads values that differ between passes."""
        return any(point.trace.random or point.trace.reads for point in self.layers.values())

    @cached_property
    def _seeds(self) -> Seeds:
        return Seeds(self.seed, any(point.trace.random for point in self.layers.values()), self.device)

    @cached_property
    def _way(self) -> Way:
        is_planar = any(each.ndim == 4 for each in self.network.model.parameters())
        # In another layout the same random numbers would fall on other values.
        is_last = memory_layout(self.device) is not None and is_planar and not self.is_random
        return Way(channels_last=is_last, own_backward=True)

    @property
    def _frame(self) -> Box[int]:
        return Box.whole(self.network.size)

    @property
    def _fits(self) -> bool:
        """Whether the graph of an image fits into the memory that is allowed."""
        return self._needed <= self.memory

    @cached_property
    def _needed(self) -> int:
        """Bytes of all maps of an image, the most that a graph keeps."""
        return max(point.trace.activation_bytes for point in self.layers.values())


def _sums_vary(maps: Tensor) -> bool:
    """Whether the sums over channels of a map (1, C, h, w) differ between units by more than rounding."""
    some = maps[0, :, :: max(1, maps.shape[2] // 8), :: max(1, maps.shape[3] // 8)].double()
    sums = some.sum(0)
    return bool(sums.max() - sums.min() > _CHANGE * some.abs().sum(0).max())
