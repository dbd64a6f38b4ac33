"""Trial of one way of computing on one image."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from erf.engine.batches import BatchGradients, LocatedSample
from erf.engine.self_check.differences import (
    Differences,
    FrameGradients,
    are_finite,
    are_within,
    describe_differences,
    differences,
    on_frame,
    ratio,
)
from erf.engine.self_check.perturbation import companions
from erf.engine.self_check.reference import KINKS, TIES, Reference
from erf.gradients.units import MAX
from erf.gradients.way import PLAIN, Way
from erf.network.devices import is_memory_error

_SURE = 0.1
"""Largest ratio of a slope's deviations from the right and from the wrong gradient that counts as proof."""

NETWORK_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError, NotImplementedError)
"""Errors that networks raise for a batch or memory layout that they do not support."""


@dataclass
class Trial:
    """Trial of one way on one image, with companion images where the way uses batches."""

    way: Way
    gradients: BatchGradients
    reference: Reference
    agrees: bool = False
    differences: Differences = field(default_factory=dict)
    reason: str = ""

    @classmethod
    def of(cls, way: Way, gradients: BatchGradients, reference: Reference) -> "Trial":
        """Run a trial, in smaller batches where memory runs out."""
        trial = cls(way, gradients, reference)
        try:
            trial.agrees = trial._run()
        except NETWORK_ERRORS as error:
            if not is_memory_error(error):
                trial.reason = f"fails ({(str(error).strip() or type(error).__name__).splitlines()[0][:100]})"
            elif way.batch_size > 1:
                return cls.of(replace(way, batch_size=way.batch_size // 2), gradients, reference)
            else:
                raise
        return trial

    @property
    def refutes_plain(self) -> bool:
        """Whether finite differences show that the plain gradient is wrong, and that of this way is right.

        The library has backward passes that are wrong for single images with unusual strides.
        """
        settings, reference = self.gradients.settings, self.reference
        if settings.method != "gradient" or settings.moves or settings.precision != "float32":
            return False
        try:
            (computed,) = replace(self, way=replace(self.way, batch_size=1))._frames([reference.item])
        except NETWORK_ERRORS:
            return False
        parts = len(settings.arguments.parts)
        for unit, maps in computed.items():
            mine, plain = (torch.cat(each[:parts]).double() for each in (maps, reference.frames[unit]))
            off = mine - plain
            if ratio(off.abs().max(), plain.abs().max()) > reference.tolerance:
                slope, wanted, other = reference.slope(unit, off), float((mine * off).sum()), float((plain * off).sum())
                if not abs(slope - wanted) < _SURE * abs(slope - other):
                    return False
        return True

    def _run(self) -> bool:
        """Whether the image and its companions have the right gradients, in a batch and alone."""
        reference, index = self.reference, self.way.batch_size // 2
        batch = companions(reference.item, self.way.batch_size)
        computed = self._frames(batch)
        self.differences = differences(computed[index], reference.frames)
        if not self._has_strongest(batch, index):
            self.reason = "finds another unit the strongest"
            return False
        if not self._is_right(computed[index], batch, index):
            self.reason = describe_differences(self.differences)
            return False
        if len(batch) == 1:
            return True
        (alone,) = self._frames([reference.item])
        if not self._is_right(alone, [reference.item], 0):
            self.reason = f"{describe_differences(differences(alone, reference.frames))} where an image is left over"
            return False
        self.reason = "mixes the images of a batch"
        pairs = enumerate(zip(batch, computed, strict=True))
        return all(self._is_as_alone(*pair) for row, pair in pairs if row != index)

    def _is_right(self, computed: FrameGradients, batch: Sequence[LocatedSample], index: int) -> bool:
        """Whether the image at `index` of a batch has the plain gradient, up to rounding."""
        reference = self.reference
        if are_within(reference.tolerance, computed, reference.frames):
            return True
        if not reference.is_repeatable or not reference.explains(computed, TIES):
            return False
        textured = reference.textured
        changed = [*batch[:index], textured.item, *batch[index + 1 :]]
        return _agrees(textured, self._frames(changed)[index])

    def _frames(self, batch: Sequence[LocatedSample]) -> list[FrameGradients]:
        with self.way.applied(self.gradients.model, self.gradients.device):
            return [on_frame(self.gradients, image) for image in self.gradients.of(batch)]

    def _is_as_alone(self, item: LocatedSample, computed: FrameGradients) -> bool:
        """Whether a companion has the same gradient in the batch as alone, or one alone that is not finite."""
        (alone,) = self._frames([item])
        if are_within(self.reference.tolerance, computed, alone) or not are_finite(alone):
            return True
        return _agrees(Reference(self.reference.gradients, item), computed)

    def _has_strongest(self, batch: Sequence[LocatedSample], index: int) -> bool:
        """Whether the unit with the largest value is that of the plain way, or has the same value."""
        if self.gradients.settings.unit != MAX:
            return True
        item = batch[index]
        with self.way.applied(self.gradients.model, self.gradients.device):
            strongest = self.gradients.strongest([replace(each, own_units={}) for each in batch])[index]
        if strongest.own_units == item.own_units:
            return True
        plain = self.reference.gradients
        with PLAIN.applied(plain.model, plain.device):
            mine, best = plain.values([replace(item, own_units=strongest.own_units)]), plain.values([item])
        return all(
            float((best[unit].sum() - mine[unit].sum()).abs())
            <= self.reference.tolerance * float(best[unit].abs().sum())
            for unit in best
        )


def _agrees(reference: Reference, computed: FrameGradients) -> bool:
    """Whether a gradient agrees with a reference whose image leaves no ties."""
    return are_within(reference.tolerance, computed, reference.frames) or reference.explains(computed, KINKS)
