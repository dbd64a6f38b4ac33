"""Diagnosis of the gradients of a run: those that are zero, not finite, cut off, or rounding alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from erf.engine.batches import BatchGradients, ImageGradients, LocatedSample
from erf.engine.cancelling import cancelling_layers
from erf.engine.settings import ALL_CHANNELS
from erf.engine.units import MeasuredUnit
from erf.errors import ImageError, LayerError, NoGradientError
from erf.gradients.cancellation import CANCELLED
from erf.gradients.diagnosis import gradient_end
from erf.images import Sample


@dataclass
class GradientDiagnosis:
    """Finds out what is wrong with gradients; each cause is determined once per run."""

    gradients: BatchGradients
    cancelling: frozenset[str] | None = None
    """Layers whose channels cancel; None until they have been tested."""
    _ends: dict[MeasuredUnit, str] = field(default_factory=dict)

    def test_channels(self, item: LocatedSample) -> None:
        """Test once whether the channels of each layer cancel; `LayerError` if they do, unless this is allowed."""
        settings = self.gradients.settings
        if self.cancelling is not None or settings.channel != ALL_CHANNELS:
            return
        self.cancelling = cancelling_layers(self.gradients, item)
        if self.cancelling and not settings.allow_rounding:
            raise LayerError(
                f"layer '{', '.join(sorted(self.cancelling))}': {CANCELLED}",
                remedy="choose an earlier `layer`, one `channel`, or `channel=signs` with `definitions=square`; "
                "`allow_rounding=True` computes it nevertheless",
            )

    def located(self, error: NoGradientError, sample: Sample) -> LayerError:
        """Return an error that also tells where the gradient of the layer ends."""
        unit = next(unit for unit in self.gradients.units if unit.layer == error.layer)
        return LayerError(f"{error}{self._end(sample, unit)}")

    def inspect(self, sample: Sample, image: ImageGradients, is_first: bool) -> dict[MeasuredUnit, tuple[str, ...]]:
        """Return remarks about the gradients of an image, by measured unit.

        Args:
            sample: the image.
            image: its gradients.
            is_first: whether it is the first image of the run, which carries the remarks about the network.

        Raises:
            ImageError: a gradient is NaN or infinite.
        """
        extremes = {unit: _extremes(maps) for unit, maps in image.maps.items()}
        for unit, values in extremes.items():
            if not np.isfinite(values).all():
                raise ImageError(
                    f"{sample.image.path}: the gradient is NaN or infinite{self._end(sample, unit)}",
                    remedy="look at weights and normalisation",
                )
        return {unit: self._remarks(sample, unit, values, is_first) for unit, values in extremes.items()}

    def _remarks(
        self, sample: Sample, unit: MeasuredUnit, extremes: Sequence[float], is_first: bool
    ) -> tuple[str, ...]:
        if self.cancelling and unit.layer in self.cancelling:
            return (CANCELLED,) if is_first else ()
        return () if any(extremes) else (f"the gradient is zero everywhere{self._end(sample, unit)}",)

    def _end(self, sample: Sample, unit: MeasuredUnit) -> str:
        """Describe where the gradient of a unit ends; determined on the first image for which it is needed."""
        if unit not in self._ends:
            gradients = self.gradients
            inputs = torch.from_numpy(sample.pixels[None]).to(gradients.like)
            self._ends[unit] = gradient_end(gradients.model, inputs, unit.target, gradients.settings.arguments)
        return f": {self._ends[unit]}" if self._ends[unit] else ""


def _extremes(gradients: Sequence[Tensor]) -> list[float]:
    """Return minimum and maximum of each gradient, in one transfer from the device."""
    values: list[float] = torch.stack([edge for one in gradients for edge in torch.aminmax(one)]).tolist()
    return values
