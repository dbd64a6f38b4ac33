"""Gradients of all units of a run with respect to a batch of images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from erf.box import Box
from erf.engine.passes import Pass
from erf.engine.seeds import Seeds
from erf.engine.settings import SIGNS, Settings
from erf.engine.units import MeasuredUnit
from erf.errors import ImageError
from erf.gradients.autograd import Target, strongest_units, unit_values
from erf.gradients.bands import banded
from erf.gradients.methods import attributions
from erf.gradients.units import COLUMN, MAX, MaskChoice, unit_of_image
from erf.images import Failure, Sample
from erf.network.layers import Unit
from erf.network.modes import reduced_precision
from erf.network.projections import Projections
from erf.network.uploads import Upload


@dataclass(frozen=True)
class LocatedSample:
    """A sample, with its own units where units differ between images."""

    sample: Sample
    own_units: Mapping[MeasuredUnit, tuple[Unit, ...]] = field(default_factory=dict)
    """The image's own units for each measured unit, whose maps are averaged; empty where all images have the same."""
    upload: Upload | None = None
    """Copy of the sample's pixels to the device, where it is started ahead of the pass."""


@dataclass(frozen=True)
class ImageGradients:
    """Gradients of one image, for each measured unit."""

    own_units: Mapping[MeasuredUnit, tuple[Unit, ...]]
    """The image's own units for each measured unit; empty where all images have the same."""
    maps: Mapping[MeasuredUnit, list[Tensor]]
    """Gradients (C, H, W): one per draw of projections, or per unit that is averaged."""


@dataclass(frozen=True)
class BatchGradients:
    """Computation of the gradients of all units for a batch of images, in the way the model is currently set to."""

    model: nn.Module
    draws: Projections
    units: Sequence[MeasuredUnit]
    passes: Sequence[Pass]
    settings: Settings
    device: torch.device
    seeds: Seeds
    size: tuple[int, int]
    """(height, width) of an image."""
    like: Tensor = field(repr=False)
    """A tensor with the dtype and device of the model's parameters."""

    def box(self, unit: MeasuredUnit) -> Box[int]:
        """Return the region of the image that the gradients of a unit cover."""
        return next(each.crop.box for each in self.passes if unit in each.units)

    def locate(self, sample: Sample) -> LocatedSample | Failure:
        """Add to a sample the units given by a manifest column; none where units are chosen in another way."""
        try:
            own = {unit: self._own_units(sample, unit) for unit in self.units}
        except ImageError as error:
            return Failure(sample.image, str(error))
        return LocatedSample(sample, own) if all(own.values()) else LocatedSample(sample)

    def _own_units(self, sample: Sample, unit: MeasuredUnit) -> tuple[Unit, ...]:
        """Return the units to which the manifest points in an image; () where it does not choose them."""
        choice, shape, field = self.settings.unit, unit.trace.feature_shape[1:], unit.trace.field
        if mask := MaskChoice.parse(choice):
            return mask.units(sample, shape, field, self.seeds.generator(sample.image))
        if isinstance(choice, str) and choice.startswith(COLUMN):
            return (unit_of_image(choice, sample, shape, field),)
        return ()

    def of(self, batch: Sequence[LocatedSample]) -> list[ImageGradients]:
        """Compute the gradients of each image, on the device where sums are kept."""
        inputs = self.inputs(batch)
        if self.settings.unit == MAX and not batch[0].own_units:
            batch = self._on_strongest(batch, inputs)
        results = [ImageGradients(item.own_units, {unit: [] for unit in self.units}) for item in batch]
        for each in self.passes:
            part = self.part(each, inputs)
            for number in range(max((len(units) for units in batch[0].own_units.values()), default=1)):
                self._add_gradients(each, part, batch, number, results)
        return results

    def _add_gradients(
        self,
        each: Pass,
        part: Tensor,
        batch: Sequence[LocatedSample],
        number: int,
        results: Sequence[ImageGradients],
    ) -> None:
        """Add the gradients of a pass to the results, for all draws; `number` is that of each image's own unit."""
        with self.draws.each() as draws:
            for draw in draws:
                targets = self.targets(each, batch, draw, number)
                with (
                    self.seeds.applied(batch[0].sample.image, draw),
                    reduced_precision(self.settings.precision, self.device),
                    banded(each.prefix),
                ):
                    self._attribute(part, targets, each.units, results)

    def strongest(self, batch: Sequence[LocatedSample]) -> list[LocatedSample]:
        """Add to each sample, for each measured unit, the unit of the layer with the largest value."""
        return self._on_strongest(batch, self.inputs(batch))

    def values(self, batch: Sequence[LocatedSample]) -> dict[MeasuredUnit, Tensor]:
        """Return the weighted values (N, C) of each unit; of several that are averaged, those of the last."""
        inputs = self.inputs(batch)
        results: dict[MeasuredUnit, Tensor] = {}
        for each in self.passes:
            targets = self.targets(each, batch, 0)
            values = unit_values(self.model, self.part(each, inputs), targets, self.settings.arguments)
            for unit, target, value in zip(each.units, targets, values, strict=True):
                results[unit] = value if target.weights is None else value * target.weights
        return results

    def inputs(self, batch: Sequence[LocatedSample]) -> Tensor:
        """Stack pixels to (N, C, H, W), on the device if they were copied ahead."""
        pixels = [item.upload.arrived() if item.upload else torch.from_numpy(item.sample.pixels) for item in batch]
        if len({one.device for one in pixels}) > 1:
            pixels = [one.to(self.device) for one in pixels]
        return pixels[0][None] if len(pixels) == 1 else torch.stack(pixels)

    def part(self, each: Pass, inputs: Tensor) -> Tensor:
        """Crop inputs for a pass, on the device and in the dtype of the model."""
        return each.crop.cut(inputs).to(self.device, self.like.dtype).contiguous()

    def _on_strongest(self, batch: Sequence[LocatedSample], inputs: Tensor) -> list[LocatedSample]:
        own: list[dict[MeasuredUnit, tuple[Unit, ...]]] = [{} for _ in batch]
        for each in self.passes:
            targets = self.targets(each, batch, 0)
            by_target = strongest_units(self.model, self.part(each, inputs), targets, self.settings.arguments)
            for measured, by_image in zip(each.units, by_target, strict=True):
                for units, unit in zip(own, by_image, strict=True):
                    units[measured] = (unit,)
        return [replace(item, own_units=units) for item, units in zip(batch, own, strict=True)]

    def targets(self, each: Pass, batch: Sequence[LocatedSample], draw: int, number: int = 0) -> list[Target]:
        pairs = zip(each.crop.targets, each.units, strict=True)
        return [self._target(target, unit, batch, draw, number) for target, unit in pairs]

    def _target(
        self, target: Target, unit: MeasuredUnit, batch: Sequence[LocatedSample], draw: int, number: int
    ) -> Target:
        """Adapt a target to these images: their own units, and the output gradients of the channels."""
        target = replace(target, activation=self.settings.activation, window=unit.window)
        if batch[0].own_units:
            target = replace(target, units=tuple(item.own_units[unit][number] for item in batch))
        channels, choice = unit.trace.feature_shape[0], self.settings.channel
        if isinstance(choice, int):
            weights = torch.zeros(1, channels)
            weights[0, choice] = 1
        elif choice == SIGNS:
            weights = torch.stack([self.seeds.signs(item.sample.image, channels, draw) for item in batch])
        else:
            return target
        return replace(target, weights=weights.to(self.device))

    def _attribute(
        self,
        inputs: Tensor,
        targets: Sequence[Target],
        units: Sequence[MeasuredUnit],
        results: Sequence[ImageGradients],
    ) -> None:
        settings = self.settings
        maps = attributions(settings.method, self.model, inputs, targets, settings.arguments, settings.method_options)
        for target, unit, gradients in zip(targets, units, maps, strict=True):
            for row, gradient in enumerate(gradients.to(sums_device(self.device))):
                source = target.units[row % len(target.units)]
                by = unit.shift(source) if self.settings.moves else (0, 0)
                results[row].maps[unit].append(moved(gradient, by) if any(by) else gradient)


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
