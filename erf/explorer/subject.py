"""A network with its images, as the explorer shows them."""

import math
import time
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from erf.box import Box
from erf.building import Network
from erf.building.network import SMALLER
from erf.definitions import DEFINITIONS
from erf.engine.batches import LocatedSample
from erf.engine.description import RunDescription
from erf.engine.self_check.perturbation import varied
from erf.engine.self_check.reference import TEXTURE, tolerance_of
from erf.engine.settings import Settings
from erf.engine.units import MeasuredUnit
from erf.errors import ImageError, InputError, LayerError
from erf.explorer.field import Field, Place, padded
from erf.explorer.given import Given
from erf.explorer.passes import Gradient, Passes
from erf.explorer.pictures import Pictures
from erf.gradients.autograd import Target
from erf.gradients.cancellation import CANCELLED
from erf.gradients.graph import Cancelled, CancelledError, never
from erf.gradients.probe import theoretical_box
from erf.gradients.units import one_channel
from erf.gradients.way import PLAIN
from erf.images import ImageSet, Sample
from erf.network.devices import memory_errors
from erf.network.layers import Unit
from erf.results import Provenance
from erf.theory.layers import MappedLayer


@dataclass(frozen=True)
class Check:
    """Comparison of a layer's fast gradient with the plain one, on its first field."""

    text: str
    ok: bool


@dataclass
class Subject:
    """A network and its images; only one thread may compute with it."""

    network: Network
    pictures: Pictures
    device: torch.device
    memory: int
    """Bytes that a kept graph may take."""
    given: Given = Given()  # noqa: RUF009 (frozen)
    seed: int = 0
    is_ended: Cancelled = never
    """Asked at each module; ends all passes."""
    checks: dict[str, Check] = field(default_factory=dict)
    """By layer, once it was compared."""
    _faults: dict[str, str] = field(default_factory=dict)
    """What is wrong with a layer that was tested, '' if nothing."""

    def __post_init__(self) -> None:
        self.network.model.to(self.device)

    @property
    def images(self) -> ImageSet:
        return self.pictures.images

    @cached_property
    def layers(self) -> dict[str, MappedLayer]:
        """Layers that can be asked for, in the order in which they return."""
        points = self.network.mapped_layers()
        found = {point.name: point for point in points if point.calls == 1 and len(point.trace.feature_shape) == 3}
        if not found:
            raise LayerError(f"no layer of {self.network.name} yields a map over an image")
        return found

    @cached_property
    def passes(self) -> Passes:
        return Passes(self.network, self.layers, self.device, self.memory, self.seed, self._ended)

    def _ended(self) -> bool:
        return self.is_ended()

    @cached_property
    def default_layer(self) -> str:
        return self.network.default_layer(list(self.layers.values())).name

    def layer(self, name: str) -> MappedLayer:
        """Return a layer; raises `LayerError` if the network has none of that name with a map."""
        if name not in self.layers:
            raise LayerError(f"layer '{name}' of {self.network.name} yields no map over the image")
        return self.layers[name]

    def check_part(self, part: int) -> None:
        """Raise `InputError` unless the network has an input of this number."""
        if not 0 <= part < len(self.network.arguments.parts):
            raise InputError(f"input {part} of {self.network.name}, which has {len(self.network.arguments.parts)}")

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

        The first field of a layer behind all that were compared with the plain computation is compared at once: no
        number is shown whose backward passes were never tested.

        Args:
            place: the unit.
            name: id of the field.
            is_cancelled: asked between layers.

        Raises:
            ErfError: the image, layer, unit or channel cannot be used, or memory runs out.
            CancelledError: the field is no longer wanted.
        """
        began = time.perf_counter()
        found = self._field(place, name, is_cancelled)
        if not self._is_covered(place.layer):
            self.check(found, is_cancelled)
            if is_cancelled():
                raise CancelledError
            if not self._is_trusted(place.layer):
                found = self._field(place, name, is_cancelled)
        return replace(found, seconds=time.perf_counter() - began)

    def _is_trusted(self, layer: str) -> bool:
        """Whether fields of a layer may be computed in the fast way."""
        return layer not in self.checks or self.checks[layer].ok

    def _is_covered(self, layer: str) -> bool:
        """Whether a layer, or one that returns later, was found equal to the plain computation, or is computed so."""
        names = list(self.layers)
        last = max((names.index(each) for each, check in self.checks.items() if check.ok), default=-1)
        return layer in self.checks or names.index(layer) <= last

    def _field(self, place: Place, name: str, is_cancelled: Cancelled) -> Field:
        self.check_part(place.part)
        sample, unit, traced = self.pictures.sample(place.image), self.unit_at(place), self.layer(place.layer).trace
        with memory_errors(SMALLER):
            target = self._target(place, unit, sample)
            self._test(place, target, sample)
            compute = self.passes.gradient if self._is_trusted(place.layer) else self.passes.plain
            gradient = compute(target, sample, is_cancelled)
        found = Field(
            id=name,
            place=replace(place, unit=unit),
            kind="field",
            map=self._map(place, gradient),
            box=Box(*map(float, gradient.box)),
            size=self.network.size,
            unit=unit,
            center=traced.field.center(unit)[-2:],  # type: ignore[arg-type]
            theory=theoretical_box(traced, unit, self.network.size) if traced.field.kind == "finite" else None,
            way=gradient.way,
        )
        if not math.isfinite(found.largest):
            raise ImageError(f"{sample.image.path}: the gradient is not finite")
        return found

    def prepare(self, number: int, is_cancelled: Cancelled = never) -> None:
        """Run the forward pass of an image and one backward pass, so that its first field is fast as well."""
        middle = (self.network.size[0] / 2, self.network.size[1] / 2)
        self.field(Place(0, number, self.default_layer, pixel=middle), "", is_cancelled)

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
        is_random = self.passes.is_random
        about = RunDescription(self.network.origin(), self.images, settings, self.device, "", is_random, 0, 0.0)
        unit = MeasuredUnit(place.layer, found.unit, self.layer(place.layer).trace, (found.unit,))
        return about.of(unit, Box(*map(int, found.box)), {})

    def check_of(self, found: Field) -> Check | None:
        """Return how a field compares with the plain computation; None where its layer was not compared yet."""
        known = self.checks.get(found.place.layer)
        if known is None and found.way == PLAIN.description:
            return Check("this is the plain computation", True)
        return known

    def check(self, found: Field, is_cancelled: Cancelled = never) -> None:
        """Compare a field with that computed in the plain way; layers that differ are computed plainly from then on.

        Where a map is constant, as on a black background, rounding decides which way a ReLU falls. So where fields
        differ, both are computed again for the image with a little noise, which leaves no ties.
        """
        place, layer = found.place, found.place.layer
        if layer in self.checks or found.way == PLAIN.description:
            return
        sample = self.pictures.sample(place.image)
        try:
            off = self._difference(found.whole(), place, found.unit, sample, is_cancelled)
            noisy = off if off <= self._tolerance else self._noisy_difference(place, found.unit, sample, is_cancelled)
        except CancelledError:
            return  # the next field of this layer is compared
        words = f"differs from the plain computation by {off:.0e} of the maximum"
        if off <= self._tolerance:
            self.checks[layer] = Check(f"equal to the plain computation to {off:.0e} of the maximum", True)
        elif noisy <= self._tolerance:
            self.checks[layer] = Check(f"{words}, where rounding decides; with noise on the image by {noisy:.0e}", True)
        else:
            self.checks[layer] = Check(f"{words}; from now on, fields of this layer are computed plainly", False)

    @property
    def _tolerance(self) -> float:
        """Largest difference that rounding explains, relative to the largest value."""
        return tolerance_of(torch.finfo(self.passes.like.dtype).eps)

    def _noisy_difference(self, place: Place, unit: Unit, sample: Sample, is_cancelled: Cancelled) -> float:
        # Another number, so that it has a graph of its own.
        noisy = varied(LocatedSample(sample), noise=TEXTURE, number=len(self.images)).sample
        fast = self.passes.gradient(self._target(place, unit, noisy), noisy, is_cancelled)
        whole = padded(self._map(place, fast), fast.box, self.network.size)
        return self._difference(whole, place, unit, noisy, is_cancelled)

    def _difference(
        self, computed: NDArray[np.float32], place: Place, unit: Unit, sample: Sample, is_cancelled: Cancelled
    ) -> float:
        """Return the largest difference of a map (H, W) from that computed plainly, relative to its maximum."""
        plain = self._map(place, self.passes.plain(self._target(place, unit, sample), sample, is_cancelled))
        return float(np.abs(computed - plain).max()) / (float(np.abs(plain).max()) or 1.0)

    def _map(self, place: Place, gradient: Gradient) -> NDArray[np.float32]:
        """Return the map (h, w) of the input that is asked for."""
        channels = self.network.arguments.channels(self.network.input_shape)[place.part]
        found: NDArray[np.float32] = DEFINITIONS[place.definition](gradient.values[channels]).float().cpu().numpy()
        return found

    def _target(self, place: Place, unit: Unit, sample: Sample) -> Target:
        """Return the unit with the weights of its channels; raises `ErfError` for channels that it does not have."""
        traced = self.layer(place.layer).trace
        Settings(channel=place.channel, definitions=(place.definition,))  # refuses what a run refuses
        channels, weights = traced.feature_shape[0], None
        if isinstance(place.channel, int):
            one_channel(place.channel, place.layer, channels)
            weights = torch.zeros(1, channels)
            weights[0, place.channel] = 1
        elif place.channel == "signs":
            weights = self.passes.signs(sample, channels)
        return Target(place.layer, (unit,), traced.layout, None if weights is None else weights.to(self.passes.like))

    def _test(self, place: Place, target: Target, sample: Sample) -> None:
        """Raise `LayerError` for the sum of channels that cancel; tested once for each layer."""
        if place.channel != "all":
            return
        if place.layer not in self._faults:
            self._faults[place.layer] = CANCELLED if self.passes.cancels(target, sample) else ""
        if self._faults[place.layer]:
            raise LayerError(
                f"layer '{place.layer}': {self._faults[place.layer]}; choose an earlier layer, or one channel"
            )
