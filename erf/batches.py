"""Gradients of the units of a run with respect to a batch of images."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from erf.bands import banded
from erf.errors import ImageError
from erf.geometry import ReceptiveField
from erf.gradients import Target, reduced_precision, strongest_units, unit_values
from erf.images import Failure, Image, Sample
from erf.layers import Layout, Unit
from erf.methods import attributions
from erf.passes import Pass
from erf.projections import Projections
from erf.settings import SIGNS, Settings
from erf.units import MAX, unit_of_image
from erf.uploads import Upload


@dataclass(frozen=True)
class Located:
    """A sample and, where images have units of their own, these units by tap."""

    sample: Sample
    units: tuple[Unit, ...] = ()
    upload: Upload | None = None
    """Of the sample's pixels, where they are copied ahead of the pass."""


@dataclass(frozen=True)
class Found:
    """What a pass found for one image."""

    units: tuple[Unit, ...]
    """By tap, where the image has units of its own."""
    gradients: tuple[list[Tensor], ...]
    """(C, H, W), by tap; of one tap one per draw of projections, or per unit over which it averages."""


@dataclass(frozen=True)
class TappedUnit:
    """The unit of a layer that has an ERF of its own, and what is known of the layer."""

    layer: str
    unit: Unit
    field: ReceptiveField
    feature_shape: tuple[int, ...]
    layout: Layout

    @property
    def target(self) -> Target:
        return Target(self.layer, (self.unit,), self.layout)

    def shift(self, unit: Unit) -> tuple[int, int]:
        """(y, x) in pixels by which the map of another unit is moved so that it lies on this one."""
        pairs = zip(self.field.center(self.unit), self.field.center(unit), strict=True)
        y, x = (round(there - here) for there, here in pairs)
        return y, x


@dataclass(frozen=True)
class BatchGradients:
    """What gives the gradients of all units for a batch of images, in whichever way the model is set to compute."""

    model: nn.Module
    draws: Projections
    tapped: Sequence[TappedUnit]
    passes: Sequence[Pass]
    settings: Settings
    device: torch.device
    seed: int
    is_random: bool
    """Whether network or method draw random numbers; batches then have one image."""
    size: tuple[int, int]
    """(height, width) of an image."""
    like: torch.Tensor = field(repr=False)
    """A tensor of the type and on the device of the model's parameters."""

    def part(self, place: int) -> tuple[int, int, int, int]:
        """(top, bottom, left, right) of the image that the gradients of a tap cover."""
        return next(each.window.part for each in self.passes if place in each.places)

    def locate(self, sample: Sample) -> Located | Failure:
        """A sample with the units to which its manifest points; none where the units are known otherwise."""
        choice = self.settings.unit
        if not isinstance(choice, str) or not choice.startswith("column:"):
            return Located(sample)
        try:
            units = (unit_of_image(choice, sample, tap.feature_shape[1:], tap.field) for tap in self.tapped)
            return Located(sample, tuple(units))
        except ImageError as error:
            return Failure(sample.image, str(error))

    def of(self, batch: Sequence[Located]) -> list[Found]:
        """What is found for each image, on the device where sums are kept."""
        inputs = self._inputs(batch)
        if self.settings.unit == MAX and not batch[0].units:
            batch = self._on_strongest(batch, inputs)
        found = [Found(item.units, tuple([] for _ in self.tapped)) for item in batch]
        for each in self.passes:
            part = each.window.cut(inputs).to(self.device, self.like.dtype).contiguous()
            with self.draws.each() as draws:
                for draw in draws:
                    targets = self._targets(each, batch, draw)
                    with (
                        self._seeded(batch[0].sample.image, draw),
                        reduced_precision(self.settings.precision, self.device),
                        banded(each.prefix),
                    ):
                        self._attribute(part, targets, each.places, found)
        return found

    def strongest(self, batch: Sequence[Located]) -> list[tuple[Unit, ...]]:
        """Of each image the unit of each tap whose value is largest."""
        return [item.units for item in self._on_strongest(batch, self._inputs(batch))]

    def values(self, batch: Sequence[Located]) -> list[Tensor]:
        """Values (N, C) of the unit of each tap."""
        inputs = self._inputs(batch)
        found: dict[int, Tensor] = {}
        for each in self.passes:
            part = each.window.cut(inputs).to(self.device, self.like.dtype).contiguous()
            targets = self._targets(each, batch, 0)
            values = unit_values(self.model, part, targets, self.settings.arguments)
            for place, target, value in zip(each.places, targets, values, strict=True):
                found[place] = value if target.weights is None else value * target.weights
        return [found[place] for place in sorted(found)]

    def _inputs(self, batch: Sequence[Located]) -> Tensor:
        """(N, C, H, W), on the device where all of them were copied ahead."""
        pixels = [item.upload.arrived() if item.upload else torch.from_numpy(item.sample.pixels) for item in batch]
        if len({one.device for one in pixels}) > 1:
            pixels = [one.to(self.device) for one in pixels]
        return pixels[0][None] if len(pixels) == 1 else torch.stack(pixels)

    def _on_strongest(self, batch: Sequence[Located], inputs: Tensor) -> list[Located]:
        units: list[list[Unit]] = [[] for _ in batch]
        for each in self.passes:
            part = each.window.cut(inputs).to(self.device, self.like.dtype).contiguous()
            targets = self._targets(each, batch, 0)
            for by_image in strongest_units(self.model, part, targets, self.settings.arguments):
                for own, unit in zip(units, by_image, strict=True):
                    own.append(unit)
        return [replace(item, units=tuple(own)) for item, own in zip(batch, units, strict=True)]

    def _targets(self, each: Pass, batch: Sequence[Located], draw: int) -> list[Target]:
        pairs = zip(each.window.targets, each.places, strict=True)
        return [self._target(target, place, batch, draw) for target, place in pairs]

    def _target(self, target: Target, place: int, batch: Sequence[Located], draw: int) -> Target:
        """The same for these images: with units of their own, and the gradients that are put on the channels."""
        if batch[0].units:
            target = replace(target, units=tuple(item.units[place] for item in batch))
        channels, choice = self.tapped[place].feature_shape[0], self.settings.channel
        if isinstance(choice, int):
            weights = torch.zeros(1, channels)
            weights[0, choice] = 1
        elif choice == SIGNS:
            weights = torch.stack([self._signs(item.sample.image, channels, draw) for item in batch])
        else:
            return target
        return replace(target, weights=weights.to(self.device))

    def _signs(self, image: Image, channels: int, draw: int) -> Tensor:
        """Random signs that belong to an image, in whatever batch it comes."""
        rng = np.random.default_rng([self.seed, image.number, draw])
        return torch.from_numpy(rng.choice(np.array([-1, 1], np.float32), channels))

    @contextmanager
    def _seeded(self, image: Image, draw: int) -> Iterator[None]:
        """Within, what is drawn at random belongs to the image."""
        if not self.is_random:
            yield
            return
        seed = np.random.SeedSequence([self.seed, image.number, draw])
        devices = [self.device] if self.device.type == "cuda" else []
        number, before = int(seed.generate_state(1)[0]), np.random.get_state()
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(number)
            np.random.seed(number)  # captum draws from it
            try:
                yield
            finally:
                np.random.set_state(before)

    def _attribute(
        self, inputs: Tensor, targets: Sequence[Target], places: Sequence[int], found: Sequence[Found]
    ) -> None:
        settings = self.settings
        maps = attributions(settings.method, self.model, inputs, targets, settings.arguments, settings.method_options)
        for target, place, gradients in zip(targets, places, maps, strict=True):
            for row, gradient in enumerate(gradients.to(sums_device(self.device))):
                unit = target.units[row % len(target.units)]
                by = self.tapped[place].shift(unit) if self.settings.moves else (0, 0)
                found[row].gradients[place].append(moved(gradient, by) if any(by) else gradient)


def sums_device(device: torch.device) -> torch.device:
    """Where float64 sums are kept: MPS has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def moved(tensor: Tensor, by: tuple[int, int], fill: float = 0.0) -> Tensor:
    """A tensor (C, H, W) moved by (y, x) pixels; what comes in at the edges is `fill`, what leaves is lost."""
    result = torch.full_like(tensor, fill)
    (to_y, from_y), (to_x, from_x) = (
        (slice(max(step, 0), length + min(step, 0)), slice(max(-step, 0), length - max(step, 0)))
        for step, length in zip(by, tensor.shape[1:], strict=True)
    )
    if all(abs(step) < length for step, length in zip(by, tensor.shape[1:], strict=True)):
        result[:, to_y, to_x] = tensor[:, from_y, from_x]
    return result
