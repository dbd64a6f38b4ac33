"""Gradients of all units of a run with respect to a batch of images."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from erf.engine.passes import Pass
from erf.engine.settings import SIGNS, Settings
from erf.errors import ImageError
from erf.gradients.autograd import Target, strongest_units, unit_values
from erf.gradients.bands import banded
from erf.gradients.methods import attributions
from erf.gradients.units import MAX, unit_of_image
from erf.images import Failure, Image, Sample
from erf.network.layers import Layout, Unit
from erf.network.modes import reduced_precision
from erf.network.projections import Projections
from erf.network.uploads import Upload
from erf.theory.fields import ReceptiveField


@dataclass(frozen=True)
class Located:
    """A sample, with its own units by index of the ERF (tap) where units differ between images."""

    sample: Sample
    units: tuple[Unit, ...] = ()
    upload: Upload | None = None
    """Copy of the sample's pixels to the device, where it is started ahead of the pass."""


@dataclass(frozen=True)
class Found:
    """Gradients of one image, for each measured unit."""

    units: tuple[Unit, ...]
    """Units by tap, where the image has its own; otherwise empty."""
    gradients: tuple[list[Tensor], ...]
    """Gradients (C, H, W) by tap; for each tap one per draw of projections, or per unit that it averages."""


@dataclass(frozen=True)
class TappedUnit:
    """A unit that has its own ERF, with field, map shape and layout of its layer."""

    layer: str
    unit: Unit
    field: ReceptiveField
    feature_shape: tuple[int, ...]
    layout: Layout

    @property
    def target(self) -> Target:
        return Target(self.layer, (self.unit,), self.layout)

    def shift(self, unit: Unit) -> tuple[int, int]:
        """Return the shift (y, x) in pixels that aligns the map of another unit with this one."""
        pairs = zip(self.field.center(self.unit), self.field.center(unit), strict=True)
        y, x = (round(there - here) for there, here in pairs)
        return y, x


@dataclass(frozen=True)
class BatchGradients:
    """Computation of the gradients of all units for a batch of images, in the way the model is currently set to."""

    model: nn.Module
    draws: Projections
    tapped: Sequence[TappedUnit]
    passes: Sequence[Pass]
    settings: Settings
    device: torch.device
    seed: int
    is_random: bool
    """Whether the network or the method draws random numbers; batches then have one image."""
    size: tuple[int, int]
    """(height, width) of an image."""
    like: torch.Tensor = field(repr=False)
    """A tensor with the dtype and device of the model's parameters."""

    def part(self, place: int) -> tuple[int, int, int, int]:
        """Return the region (top, bottom, left, right) of the image that the gradients of a tap cover."""
        return next(each.window.part for each in self.passes if place in each.places)

    def locate(self, sample: Sample) -> Located | Failure:
        """Add to a sample the units given by a manifest column; none where units are chosen in another way."""
        choice = self.settings.unit
        if not isinstance(choice, str) or not choice.startswith("column:"):
            return Located(sample)
        try:
            units = (unit_of_image(choice, sample, tap.feature_shape[1:], tap.field) for tap in self.tapped)
            return Located(sample, tuple(units))
        except ImageError as error:
            return Failure(sample.image, str(error))

    def of(self, batch: Sequence[Located]) -> list[Found]:
        """Compute the gradients of each image, on the device where sums are kept."""
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
        """Find, for each image and tap, the unit with the largest value."""
        return [item.units for item in self._on_strongest(batch, self._inputs(batch))]

    def values(self, batch: Sequence[Located]) -> list[Tensor]:
        """Return the weighted values (N, C) of the unit of each tap."""
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
        """Stack pixels to (N, C, H, W), on the device if they were copied ahead."""
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
        """Adapt a target to these images: their own units, and the output gradients of the channels."""
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
        """Draw random signs that depend on the image alone, not on its batch."""
        rng = np.random.default_rng([self.seed, image.number, draw])
        return torch.from_numpy(rng.choice(np.array([-1, 1], np.float32), channels))

    @contextmanager
    def _seeded(self, image: Image, draw: int) -> Iterator[None]:
        """Context manager that seeds all random draws by image and draw."""
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
    """Return the device on which float64 sums are kept: the CPU for MPS, which has no float64."""
    return torch.device("cpu") if device.type == "mps" else device


def moved(tensor: Tensor, by: tuple[int, int], fill: float = 0.0) -> Tensor:
    """Shift a tensor (C, H, W) by (y, x) pixels; new pixels at the edges are `fill`, those shifted out are lost."""
    result = torch.full_like(tensor, fill)
    (to_y, from_y), (to_x, from_x) = (
        (slice(max(step, 0), length + min(step, 0)), slice(max(-step, 0), length - max(step, 0)))
        for step, length in zip(by, tensor.shape[1:], strict=True)
    )
    if all(abs(step) < length for step, length in zip(by, tensor.shape[1:], strict=True)):
        result[:, to_y, to_x] = tensor[:, from_y, from_x]
    return result
