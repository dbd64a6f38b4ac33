"""A network with its images, as the explorer computes with it: the fastest way to the next field.

The graph of the last image is kept if it fits into the memory that is allowed; the next field then takes a backward
pass only. Where the theoretical field is small, a pass on a crop is faster still.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from erf.box import Box
from erf.building import Network
from erf.definitions import DEFINITIONS
from erf.engine.description import RunDescription
from erf.engine.seeds import Seeds
from erf.engine.self_check.trial import NETWORK_ERRORS
from erf.engine.settings import Settings
from erf.engine.units import MeasuredUnit
from erf.errors import ImageError, InputError, LayerError
from erf.explorer.field import Field, Place
from erf.gradients.autograd import Target, unit_values
from erf.gradients.cancellation import CANCELLED, channels_cancel
from erf.gradients.crops import crop_of_unit
from erf.gradients.graph import CancelledError, ImageGraph, never, stoppable
from erf.gradients.probe import theoretical_box
from erf.gradients.saved_tensors import saved_on_disk
from erf.gradients.way import PLAIN, Way
from erf.images import Failure, Image, ImageSet, Sample
from erf.images.thumbnail import block_means
from erf.network.devices import is_memory_error, memory_errors, memory_layout
from erf.network.layers import Unit
from erf.results import Provenance
from erf.theory.layers import MappedLayer
from erf.theory.tracing import blank

Cancelled = Callable[[], bool]

_CROP = 0.3
"""Share of the image below which two passes on a crop are faster than a backward pass on the whole image."""

_CROP_ALONE = 0.9
"""The same where no graph is kept, so that the whole image takes two passes as well."""

_ROUNDING = 1e-3
"""Tolerance relative to the largest value: single precision differs by as much between convolution algorithms."""

_CHANGE = 0.01
"""Change of a sum over channels between units, relative to that of absolute values, from which it is no constant."""

_SAMPLES = 3
"""Images that stay decoded."""

_THUMBNAIL = 96
"""Width of a thumbnail in pixels, at least."""

_SMALLER = "use a smaller `size`"


@dataclass(frozen=True)
class Check:
    """Comparison of a layer's fast gradient with the plain one, on its first field."""

    text: str
    ok: bool


@dataclass(frozen=True)
class _Gradient:
    """Gradient (C, h, w) of a unit within a box, and the way in words."""

    values: Tensor
    box: Box[int]
    way: str


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a network and its images were made from, as far as they do not tell themselves."""

    model: str = ""
    """Name of the network; '' if it was given as an object."""
    is_built: bool = False
    """Whether a module or network was given that had its options already."""
    weights: str = ""
    trust: bool = False
    source: str = ""
    """Source of the images; '' if they were given as objects."""
    is_array: bool = False
    """Whether they were given as arrays."""
    image_seed: int = 0
    normalisation: str = ""
    fit: str = ""
    interpolation: str = ""
    allow_outside: bool = False


@dataclass
class Subject:
    """A network and its images; only one thread may compute with it."""

    network: Network
    images: ImageSet
    device: torch.device
    memory: int
    """Bytes that a kept graph may take."""
    given: Given = Given()
    seed: int = 0
    is_ended: Cancelled = never
    """Asked at each module: ends also those passes that a newer request is to use, such as that of the kept graph."""
    checks: dict[str, Check] = field(default_factory=dict)
    """By layer, once it was compared."""
    _samples: dict[int, Sample] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)
    _shown: dict[tuple[int, int], NDArray[np.float32]] = field(default_factory=dict)
    _shown_lock: Lock = field(default_factory=Lock)
    _graph: tuple[int, ImageGraph] | None = None
    _tested: dict[str, str] = field(default_factory=dict)
    """What is wrong with a layer, '' if nothing, by layer."""

    def __post_init__(self) -> None:
        self.network.model.to(self.device)

    @cached_property
    def layers(self) -> dict[str, MappedLayer]:
        """Layers that can be asked for, in the order in which they return."""
        points = self.network.mapped_layers()
        found = {point.name: point for point in points if point.calls == 1 and len(point.trace.feature_shape) == 3}
        if not found:
            raise LayerError(f"no layer of {self.network.name} yields a map over an image")
        return found

    @cached_property
    def default_layer(self) -> str:
        return self.network.default_layer(list(self.layers.values())).name

    def layer(self, name: str) -> MappedLayer:
        """Return a layer; raises `LayerError` if the network has none of that name with a map."""
        if name not in self.layers:
            raise LayerError(f"layer '{name}' of {self.network.name} yields no map over the image")
        return self.layers[name]

    def image(self, number: int) -> Image:
        if not 0 <= number < len(self.images):
            raise ImageError(f"image {number}; expected a number below {len(self.images)}")
        return self.images.images[number]

    def check_part(self, part: int) -> None:
        """Raise `InputError` unless the network has an input of this number."""
        if not 0 <= part < len(self.network.arguments.parts):
            raise InputError(f"input {part} of {self.network.name}, which has {len(self.network.arguments.parts)}")

    def sample(self, number: int) -> Sample:
        """Return an image, preprocessed for the network; raises `ImageError` if it cannot be used."""
        with self._lock:
            if number not in self._samples:
                found = self.images.sample(self.image(number))
                if isinstance(found, Failure):
                    raise ImageError(found.reason)
                self._samples[number] = found
                for old in list(self._samples)[:-_SAMPLES]:
                    del self._samples[old]
            return self._samples[number]

    def shown(self, number: int, part: int = 0) -> NDArray[np.float32]:
        """Return the pixels (C, H, W) of an image in the frame, on the file's scale; may raise `ImageError`."""
        image = self.image(number)
        one = image.parts[part] if image.parts else image
        with self._shown_lock:
            if (number, part) not in self._shown:
                framing = replace(self.images.framing, normalisation="none")
                self._shown[number, part] = framing.apply(one, one.decode()).pixels
                for old in list(self._shown)[:-_SAMPLES]:
                    del self._shown[old]
            return self._shown[number, part]

    def thumbnail(self, number: int) -> NDArray[np.float32]:
        """Return the pixels (C, h, w) of an image as decoded, at a reduced size; nothing of it is kept."""
        image = self.image(number)
        one = image.parts[0] if image.parts else image
        pixels = one.decode().pixels
        block = max(1, pixels.shape[2] // _THUMBNAIL)
        return np.stack([block_means(plane, block) for plane in pixels])

    def spacing(self, number: int, part: int = 0) -> float:
        """Return the millimetres of a pixel of the frame; NaN if they are not known."""
        image = self.image(number)
        one = image.parts[part] if image.parts else image
        return one.pixel_spacing if self.images.framing.fit == "pad" else math.nan

    def unit_at(self, place: Place) -> Unit:
        """Return the unit that a place names, or the one nearest to its pixel; raises `LayerError` if there is none."""
        traced = self.layer(place.layer).trace
        lengths = traced.feature_shape[1:]
        if place.unit is not None:
            if len(place.unit) != len(lengths) or not all(
                0 <= index < length for index, length in zip(place.unit, lengths, strict=True)
            ):
                raise LayerError(f"unit {place.unit} lies outside layer '{place.layer}'")
            return place.unit
        if place.pixel is None:
            raise LayerError("neither a unit nor a pixel was asked for")
        nearest = traced.field.nearest(place.pixel)
        return tuple(min(max(index, 0), length - 1) for index, length in zip(nearest, lengths, strict=True))

    def field(self, place: Place, name: str, is_cancelled: Cancelled = never) -> Field:
        """Compute the receptive field of a unit in an image.

        Args:
            place: the unit.
            name: id of the field.
            is_cancelled: asked between layers.

        Raises:
            ErfError: the image, layer, unit or channel cannot be used, or memory runs out.
            CancelledError: the field is no longer wanted.
        """
        began = time.perf_counter()
        self.check_part(place.part)
        sample, unit, point = self.sample(place.image), self.unit_at(place), self.layer(place.layer)
        with memory_errors(_SMALLER):
            self._test(place, sample)
            target = self._target(place, unit, sample)
            gradient = self._gradient(place, unit, target, sample, is_cancelled)
        map_, box = self._map(place, gradient)
        traced = point.trace
        found = Field(
            id=name,
            place=replace(place, unit=unit),
            kind="field",
            map=map_,
            box=box,
            size=self.network.size,
            unit=unit,
            center=traced.field.center(unit)[-2:],  # type: ignore[arg-type]
            theory=theoretical_box(traced, unit, self.network.size) if traced.field.kind == "finite" else None,
            way=gradient.way,
            seconds=time.perf_counter() - began,
        )
        if not math.isfinite(found.largest):
            raise ImageError(f"{sample.image.path}: the gradient is not finite")
        return found

    def provenance(self, found: Field) -> Provenance:
        """Return the description of a field, as a run of this unit would record it."""
        place = found.place
        settings = Settings(
            unit=found.unit,
            channel=place.channel,
            definitions=(place.definition,),
            arguments=self.network.arguments,
            seed=self.seed,
            device=str(self.device),
        )
        about = RunDescription(self.network.origin(), self.images, settings, self.device, "", self.is_random, 0, 0.0)
        unit = MeasuredUnit(place.layer, found.unit, self.layer(place.layer).trace, (found.unit,))
        return about.of(unit, Box(*map(int, found.box)), {})

    def prepare(self, number: int, is_cancelled: Cancelled = never) -> None:
        """Run the forward pass of an image and one backward pass, so that its first field is fast as well."""
        middle = (self.network.size[0] / 2, self.network.size[1] / 2)
        self.field(Place(0, number, self.default_layer, pixel=middle), "", is_cancelled)

    def check_of(self, found: Field) -> Check | None:
        """Return how a field compares with the plain computation; None where its layer was not compared yet."""
        known = self.checks.get(found.place.layer)
        if known is None and found.way == PLAIN.description:
            return Check("this is the plain computation", True)
        return known

    def check(self, found: Field, is_cancelled: Cancelled = never) -> None:
        """Compare a field with that computed in the plain way; layers that differ are computed plainly from then on."""
        place, layer = found.place, found.place.layer
        if layer in self.checks or found.way == PLAIN.description:
            return
        sample = self.sample(place.image)
        target = self._target(place, found.unit, sample)
        try:
            gradient = self._plain(target, sample, is_cancelled)
        except CancelledError:
            return  # the next field of this layer is compared
        plain, _ = self._map(place, gradient)
        off = float(np.abs(found.whole() - plain).max()) / (float(np.abs(plain).max()) or 1.0)
        tolerance = 2.0**13 * torch.finfo(self._like.dtype).eps
        if off <= tolerance:
            self.checks[layer] = Check(f"equal to the plain computation to {off:.0e} of the maximum", True)
        else:
            words = f"differed from the plain computation by {off:.0e} of the maximum, which is used from now on"
            self.checks[layer] = Check(words, False)

    def _map(self, place: Place, gradient: _Gradient) -> tuple[NDArray[np.float32], Box[float]]:
        """Return the map (h, w) of the input that is asked for, and its box."""
        channels = self.network.arguments.channels(self.network.input_shape)[place.part]
        map_ = DEFINITIONS[place.definition](gradient.values[channels])
        return map_.float().cpu().numpy(), Box(*map(float, gradient.box))

    def _target(self, place: Place, unit: Unit, sample: Sample) -> Target:
        """Return the unit with the weights of its channels; raises `ErfError` for channels that it does not have."""
        traced = self.layer(place.layer).trace
        Settings(channel=place.channel, definitions=(place.definition,))  # refuses what a run refuses
        channels, weights = traced.feature_shape[0], None
        if isinstance(place.channel, int):
            if not 0 <= place.channel < channels:
                raise LayerError(f"channel {place.channel} of layer '{place.layer}', which has {channels}")
            weights = torch.zeros(1, channels)
            weights[0, place.channel] = 1
        elif place.channel == "signs":
            weights = self._seeds.signs(sample.image, channels, 0)[None]
        return Target(place.layer, (unit,), traced.layout, None if weights is None else weights.to(self._like))

    def _test(self, place: Place, sample: Sample) -> None:
        """Raise `LayerError` for the sum of channels that cancel; tested once for each layer."""
        if place.channel != "all":
            return
        if place.layer not in self._tested:
            target = self._target(place, self.unit_at(place), sample)
            self._tested[place.layer] = CANCELLED if self._cancels(target, place, sample) else ""
        if self._tested[place.layer]:
            raise LayerError(
                f"layer '{place.layer}': {self._tested[place.layer]}; choose an earlier layer, or one channel"
            )

    def _cancels(self, target: Target, place: Place, sample: Sample) -> bool:
        """Whether the channels of a layer sum to a constant; two passes, unless the map shows that they do not."""
        maps = self._kept(place.image, sample).map(target) if self._fits else None
        if maps is not None and _sums_vary(maps):
            return False
        with self._running(self._way, sample):
            return channels_cancel(self.network.model, self.inputs(sample), [target], self.network.arguments)[0]

    def _gradient(self, place: Place, unit: Unit, target: Target, sample: Sample, is_cancelled: Cancelled) -> _Gradient:
        check = self.checks.get(place.layer)
        if check is not None and not check.ok:
            return self._plain(target, sample, is_cancelled)
        graph = self._kept(place.image, sample) if self._fits else None
        try:
            found = self._on_crop(unit, target, sample, graph, is_cancelled)
        except NETWORK_ERRORS as error:  # the crop may be smaller than a kernel, or than an index that is fixed
            if is_memory_error(error):
                raise
            found = None
        if found is not None:
            return found
        with self._running(self._way, sample):
            if graph is None:
                graph = ImageGraph(self.network.model, self.inputs(sample), [place.layer], self.network.arguments)
                return _Gradient(graph.gradient(target, is_cancelled), self._frame, "whole image")
            return _Gradient(graph.gradient(target, is_cancelled), self._frame, "backward pass through the kept graph")

    def _on_crop(
        self, unit: Unit, target: Target, sample: Sample, graph: ImageGraph | None, is_cancelled: Cancelled
    ) -> _Gradient | None:
        """Compute the gradient on a crop; None where there is no smaller one, or the unit has another value in it."""
        traced = self.layer(target.layer).trace
        crop = None if self.is_random else crop_of_unit(traced, target.layer, unit, self.network.size)
        if crop is None or crop.share(self.network.size) > (_CROP if graph else _CROP_ALONE):
            return None
        inside = replace(crop.targets[0], weights=target.weights)
        if min(inside.units[0]) < 0:  # an index that counts from the end
            return None
        with self._running(self._way, sample):
            inputs = self.inputs(sample)
            value = graph.value(target) if graph else self._value(target, inputs)
            part = ImageGraph(self.network.model, crop.cut(inputs).contiguous(), [target.layer], self.network.arguments)
            own = part.value(inside)
            if value is None or own is None or _differ(own, value):
                return None
            height, width = crop.shape
            return _Gradient(part.gradient(inside, is_cancelled), crop.box, f"crop of {height}x{width} px")

    def _value(self, target: Target, inputs: Tensor) -> Tensor:
        return unit_values(self.network.model, inputs, [target], self.network.arguments)[0]

    def _plain(self, target: Target, sample: Sample, is_cancelled: Cancelled) -> _Gradient:
        model = self.network.model
        place = nullcontext() if 2 * self._needed <= self.memory else saved_on_disk()
        with self._running(PLAIN, sample), place, stoppable(model, is_cancelled):
            graph = ImageGraph(model, self.inputs(sample), self._until(target.layer), self.network.arguments)
            return _Gradient(graph.gradient(target, is_cancelled), self._frame, PLAIN.description)

    def _until(self, layer: str) -> list[str]:
        """Return the layers up to one, at which a backward pass can end."""
        names = list(self.layers)
        return names[: names.index(layer) + 1]

    def _kept(self, number: int, sample: Sample) -> ImageGraph:
        """Return the graph of an image; the one before is given up first."""
        if self._graph is None or self._graph[0] != number:
            self._graph = None
            with memory_errors(_SMALLER), self._running(self._way, sample):
                graph = ImageGraph(self.network.model, self.inputs(sample), [*self.layers], self.network.arguments)
            self._graph = number, graph
        return self._graph[1]

    @contextmanager
    def _running(self, way: Way, sample: Sample) -> Iterator[None]:
        model = self.network.model
        with way.applied(model, self.device), self._seeds.applied(sample.image, 0), stoppable(model, self.is_ended):
            yield

    def inputs(self, sample: Sample) -> Tensor:
        return torch.from_numpy(sample.pixels)[None].to(self.device, self._like.dtype)

    @cached_property
    def _like(self) -> Tensor:
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

    @cached_property
    def _fits(self) -> bool:
        """Whether the graph of an image fits into the memory that is allowed."""
        return self._needed <= self.memory

    @cached_property
    def _needed(self) -> int:
        """Bytes of all maps of an image, the most that a graph keeps."""
        return max(point.trace.activation_bytes for point in self.layers.values())


def _differ(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() > _ROUNDING * other.abs().max())


def _sums_vary(maps: Tensor) -> bool:
    """Whether the sums over channels of a map (1, C, h, w) differ between units by more than rounding."""
    some = maps[0, :, :: max(1, maps.shape[2] // 8), :: max(1, maps.shape[3] // 8)].double()
    sums = some.sum(0)
    return bool(sums.max() - sums.min() > _CHANGE * some.abs().sum(0).max())
