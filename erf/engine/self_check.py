"""Self-check: comparison of the fast way of computing gradients with the plain one on the first image of a run.

A way is used only if it gives the same gradient as the plain way: one image, contiguous memory, the whole image, the
library's backward passes. Both differ by rounding. Where they differ by more than rounding usually explains, its
possible effect is measured: inputs and parameters are perturbed by a few units in the last place, and each pixel may
differ by a small multiple of the change this makes to the plain gradient around it. Ties of maxima over a constant
background could hide a defect from that test, so it is repeated on the image with a texture that leaves no ties. Where
a unit of the first image sees a blank background, both ways are compared on the image with noise instead.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from erf.engine.batches import BatchGradients, Found, Located
from erf.engine.passes import Pass, in_way
from erf.gradients.spill import saved_on_disk
from erf.gradients.units import MAX
from erf.gradients.way import PLAIN, Way
from erf.network.devices import is_memory_error

_TIGHT, _COARSEST = 2.0**13, 2.0**-8
"""Units in the last place by which gradients may differ without further tests, relative to the largest value and to
the sum of absolute values; at most 0.4 %."""

_MOVE = 16.0
"""Units in the last place by which inputs and parameters are perturbed; at most 0.4 %."""

_PAIRS = 3
"""Number of perturbations, each with both signs, so that one of them crosses a nearby kink."""

_TIMES = 8.0
"""Tolerance at a pixel, as a multiple of the change that perturbations make there."""

_TIES, _KINKS = 32, 2
"""Radii in pixels within which the change of a pixel is searched: ties move to other pixels, kinks stay in place."""

_TEXTURE = 0.02
"""Amplitude of the texture, relative to the image's standard deviation: far above rounding."""

_STEP, _SURE = 0.01, 0.1
"""Step of a central difference, in standard deviations of the image; and the largest ratio of its deviations from the
right and from the wrong gradient that counts as proof."""

_FLAT = 0.01
"""Largest difference between neighbouring pixels of a blank background, relative to the image's standard deviation."""

_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError, NotImplementedError)
"""Errors that networks raise for a batch or memory layout that they do not support."""

Frames = list[list[Tensor]]
"""Gradients (C, H, W) on the whole image of each draw, unit and input, by tap."""


@dataclass(frozen=True)
class Difference:
    """Difference between gradients, relative to the plain ones."""

    largest: float = 0.0
    """Largest difference, relative to the largest value."""
    share: float = 0.0
    """Sum of differences, relative to the sum of absolute values."""

    def is_within(self, tolerance: float) -> bool:
        return self.largest <= tolerance and self.share <= tolerance


@dataclass(frozen=True)
class Choice:
    """The way in which a run computes, and why."""

    way: Way
    record: Mapping[str, str]
    """Entries for the file."""
    differences: tuple[Difference, ...] = ()
    """Differences between the fast and the plain way, by tap."""
    warning: str = ""
    """One line if the fast way is not used or could not be checked; otherwise ''."""

    def of_tap(self, place: int) -> dict[str, str]:
        """Return the record for one tap, with its differences."""
        if not self.differences:
            return dict(self.record)
        found = self.differences[place]
        words = {"difference": f"{found.largest:.1e} of the largest value", "in all": f"{found.share:.1e} of the sum"}
        return dict(self.record) | words


def unchecked(way: Way, reason: str, warns: bool = False) -> Choice:
    """Choose a way without comparing it, for a reason that is recorded, and warned of if `warns`."""
    warning = f"self-check: the run was not checked, {reason}" if warns else ""
    return Choice(way, {"result": f"not checked: {reason}", "way": way.words}, warning=warning)


def choose_way(fast: Way, gradients: BatchGradients, whole: Sequence[Pass], item: Located) -> Choice | None:
    """Choose the fast way if it agrees with the plain one on an image, otherwise the first simpler way that does.

    Args:
        fast: the way to check.
        gradients: computation of gradients in the fast way.
        whole: passes over the whole image.
        item: the image.

    Returns:
        The choice; None where the plain gradient of this image is not finite.
    """
    plain = replace(gradients, passes=in_way(PLAIN, gradients.passes, whole))
    if gradients.settings.unit == MAX:
        with PLAIN.applied(plain.model, plain.device):
            item = Located(item.sample, plain.strongest([item])[0])
    is_blank = _is_blank(fast, gradients, item)
    references = _references(plain, _changed(item, noise=1.0)) if is_blank else []
    if not references:
        is_blank, references = False, _references(plain, item)
    if not references:
        return None
    trial = _try(fast, gradients.passes, whole, references)
    if not trial.agrees and trial.refutes_plain:
        alone, chosen = replace(fast, batch_size=1), in_way(fast, gradients.passes, whole)
        references = [replace(each, way=alone, gradients=replace(each.gradients, passes=chosen)) for each in references]
        trial = _try(fast, gradients.passes, whole, references)
    record = {"image": f"{item.sample.image.number}{' with noise' * is_blank}", "compared": trial.way.words}
    if trial.reference.way != PLAIN:
        record["plain way"] = "wrong, by differences of values"
    if trial.agrees:
        return Choice(trial.way, {"result": "agrees"} | record | {"way": trial.way.words}, trial.differences)
    if not trial.reference.is_repeatable:
        record |= {"result": "the network gives another gradient at every call", "way": PLAIN.words}
        warning = (
            "self-check: the network gives another gradient at every call, though it draws no random numbers that a "
            "seed would fix, so that results depend on the order of images; the run goes on in the plain way"
        )
        return Choice(PLAIN, record, trial.differences, warning)
    simpler = (_try(way, gradients.passes, whole, references) for way in fast.simpler() if way != PLAIN)
    way = next((each.way for each in simpler if each.agrees), PLAIN)
    record |= {"result": "fell back", "reason": trial.reason, "way": way.words}
    warning = (
        f"self-check: the fast way ({trial.way.words}) {trial.reason}; the run goes on with {fast.changes(way)}, which "
        "agrees with the plain way"
    )
    return Choice(way, record, trial.differences, warning)


def _is_blank(way: Way, gradients: BatchGradients, item: Located) -> bool:
    """Whether at least half of a gradient lies where the image is flat, so that it says nothing about other images.

    Computed in the way to check, which is faster than the plain one; a wrong answer only changes the image compared.
    """
    try:
        with way.applied(gradients.model, gradients.device):
            (found,) = gradients.of([item])
    except _ERRORS:
        return False
    pixels = torch.from_numpy(item.sample.pixels).to(gradients.like.device, torch.float32)
    highest, lowest = (sign * functional.max_pool2d(sign * pixels, 3, 1, 1) for sign in (1, -1))
    is_flat = (highest - lowest).amax(0) <= _FLAT * pixels.std(correction=0)
    sizes = (one.abs() for each in frames(gradients, found) for one in each)
    return any(bool(2 * size[:, is_flat].sum() >= size.sum()) for size in sizes)


def _references(plain: BatchGradients, item: Located) -> list["_Reference"]:
    """Return the plain gradients of an image, in the run's precision first; none where they are not finite."""
    references = [_Reference(plain, item)]
    if plain.settings.precision == "bfloat16":
        # Its rounding could hide a defect that full precision reveals.
        full = replace(plain.settings, precision="float32")
        references.append(_Reference(replace(plain, settings=full), item))
    return references if all(reference.is_finite for reference in references) else []


def _try(way: Way, fast: Sequence[Pass], whole: Sequence[Pass], references: Sequence["_Reference"]) -> "_Trial":
    """Try a way on all references; return the first trial that disagrees, otherwise that in the run's precision."""
    trials = []
    for reference in references:
        gradients = replace(reference.gradients, passes=in_way(way, fast, whole))
        trials.append(_Trial.of(way, gradients, reference))
        way = trials[-1].way
        if not trials[-1].agrees:
            return trials[-1]
    return replace(trials[0], way=way)


@dataclass
class _Reference:
    """Plain gradient of an image, and the possible effect of rounding on it."""

    gradients: BatchGradients
    item: Located
    way: Way = PLAIN
    """Way of the reference; not the plain one where finite differences have refuted the plain gradient."""
    eps: float = field(init=False)

    def __post_init__(self) -> None:
        self.eps = _last_place(self.gradients)
        self.tolerance = min(_TIGHT * self.eps, _COARSEST)

    @cached_property
    def frames(self) -> Frames:
        return self._plain(self.item)

    def _plain(self, item: Located, move: float = 0.0, seed: int = 0) -> Frames:
        with self.way.applied(self.gradients.model, self.gradients.device), saved_on_disk():
            if move:
                _move_parameters(self.gradients, move, seed)
            (found,) = self.gradients.of([item])
        return frames(self.gradients, found)

    def slope(self, tap: int, along: Tensor) -> float:
        """Return the directional derivative of a tap's value, by a central difference."""
        step = _STEP * float(self.item.sample.pixels.std() or 1.0) / float(along.abs().max())
        pixels, way = self.item.sample.pixels.astype(np.float64), along.double().cpu().numpy()
        with PLAIN.applied(self.gradients.model, self.gradients.device):
            ahead, behind = (
                float(self.gradients.values([_with_pixels(self.item, pixels + side * step * way)])[tap].double().sum())
                for side in (1, -1)
            )
        return (ahead - behind) / (2 * step)

    @property
    def is_finite(self) -> bool:
        return all(bool(torch.isfinite(one).all()) for each in self.frames for one in each)

    @cached_property
    def is_repeatable(self) -> bool:
        """Whether a second plain pass gives the same gradient."""
        return all(each.is_within(self.tolerance) for each in differences(self._plain(self.item), self.frames))

    @cached_property
    def textured(self) -> "_Reference":
        """The reference for the image with added noise."""
        return replace(self, item=_changed(self.item, noise=_TEXTURE))

    @cached_property
    def rounding(self) -> Frames:
        """Largest change of the plain gradient under perturbations of inputs and parameters, by pixel."""
        by = min(_MOVE * self.eps, _COARSEST)
        largest = [[torch.zeros_like(one) for one in each] for each in self.frames]
        for seed in range(_PAIRS):
            for move in (by, -by):
                item = _nudged(self.item, move, seed)
                for before, now, plain in _triples(largest, self._plain(item, move, seed), self.frames):
                    torch.maximum(before, (now - plain).abs(), out=before)
        return largest

    def explains(self, found: Frames, reach: int) -> bool:
        """Whether gradients differ from the plain ones by no more than rounding explains within `reach` pixels."""
        return all(
            self._explains(one, plain, rounding, reach)
            for one, plain, rounding in _triples(found, self.frames, self.rounding)
        )

    def _explains(self, one: Tensor, plain: Tensor, rounding: Tensor, reach: int) -> bool:
        off = (one - plain).abs()
        around = functional.max_pool2d(rounding[None].float(), (2 * reach + 1, 1), 1, (reach, 0))
        around = functional.max_pool2d(around, (1, 2 * reach + 1), 1, (0, reach))[0]
        is_near = bool((off <= self.tolerance * plain.abs().max() + _TIMES * around).all())
        return is_near and bool(off.sum() <= self.tolerance * plain.abs().sum() + _TIMES * rounding.sum())


@dataclass
class _Trial:
    """Trial of one way on one image, with companion images where the way uses batches."""

    way: Way
    gradients: BatchGradients
    reference: _Reference
    agrees: bool = False
    differences: tuple[Difference, ...] = ()
    reason: str = ""

    @classmethod
    def of(cls, way: Way, gradients: BatchGradients, reference: _Reference) -> "_Trial":
        """Run a trial, in smaller batches where memory runs out."""
        trial = cls(way, gradients, reference)
        try:
            trial.agrees = trial._run()
        except _ERRORS as error:
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
            (found,) = replace(self, way=replace(self.way, batch_size=1))._frames([reference.item])
        except _ERRORS:
            return False
        parts = len(settings.arguments.parts)
        for tap, pair in enumerate(zip(found, reference.frames, strict=True)):
            mine, plain = (torch.cat(each[:parts]).double() for each in pair)
            off = mine - plain
            if _ratio(off.abs().max(), plain.abs().max()) > reference.tolerance:
                slope, wanted, other = reference.slope(tap, off), float((mine * off).sum()), float((plain * off).sum())
                if not abs(slope - wanted) < _SURE * abs(slope - other):
                    return False
        return True

    def _run(self) -> bool:
        """Whether the image and its companions have the right gradients, in a batch and alone."""
        reference, place = self.reference, self.way.batch_size // 2
        batch = _companions(reference.item, self.way.batch_size)
        found = self._frames(batch)
        self.differences = differences(found[place], reference.frames)
        if not self._has_strongest(batch, place):
            self.reason = "finds another unit the strongest"
            return False
        if not self._is_right(found[place], batch, place):
            self.reason = _off(self.differences)
            return False
        if len(batch) == 1:
            return True
        (alone,) = self._frames([reference.item])
        if not self._is_right(alone, [reference.item], 0):
            self.reason = f"{_off(differences(alone, reference.frames))} where an image is left over"
            return False
        self.reason = "mixes the images of a batch"
        return all(self._is_as_alone(*each) for row, each in enumerate(zip(batch, found, strict=True)) if row != place)

    def _is_right(self, found: Frames, batch: Sequence[Located], place: int) -> bool:
        """Whether the image at `place` of a batch has the plain gradient, up to rounding."""
        reference = self.reference
        if all(each.is_within(reference.tolerance) for each in differences(found, reference.frames)):
            return True
        if not reference.is_repeatable or not reference.explains(found, _TIES):
            return False
        textured = reference.textured
        changed = [*batch[:place], textured.item, *batch[place + 1 :]]
        return self._agrees_there(textured, self._frames(changed)[place])

    def _frames(self, batch: Sequence[Located]) -> list[Frames]:
        with self.way.applied(self.gradients.model, self.gradients.device):
            return [frames(self.gradients, found) for found in self.gradients.of(batch)]

    def _agrees_there(self, reference: _Reference, found: Frames) -> bool:
        off = differences(found, reference.frames)
        return all(each.is_within(reference.tolerance) for each in off) or reference.explains(found, _KINKS)

    def _is_as_alone(self, item: Located, found: Frames) -> bool:
        """Whether a companion has the same gradient in the batch as alone, or one alone that is not finite."""
        (alone,) = self._frames([item])
        off = differences(found, alone)
        is_near = all(each.is_within(self.reference.tolerance) for each in off)
        if is_near or not all(bool(torch.isfinite(one).all()) for each in alone for one in each):
            return True
        return self._agrees_there(_Reference(self.reference.gradients, item), found)

    def _has_strongest(self, batch: Sequence[Located], place: int) -> bool:
        """Whether the unit with the largest value is that of the plain way, or has the same value."""
        if self.gradients.settings.unit != MAX:
            return True
        item = batch[place]
        with self.way.applied(self.gradients.model, self.gradients.device):
            units = self.gradients.strongest([replace(each, units=()) for each in batch])[place]
        if units == item.units:
            return True
        plain = self.reference.gradients
        with PLAIN.applied(plain.model, plain.device):
            mine, best = plain.values([replace(item, units=units)]), plain.values([item])
        return all(
            float((other.sum() - one.sum()).abs()) <= self.reference.tolerance * float(other.abs().sum())
            for one, other in zip(mine, best, strict=True)
        )


def frames(gradients: BatchGradients, found: Found) -> Frames:
    """Pad the gradients of one image to the whole image, and split them by input of the network."""
    height, width = gradients.size
    by_tap: Frames = []
    for place, each in enumerate(found.gradients):
        top, bottom, left, right = gradients.part(place)
        padding = (left, width - right, top, height - bottom)
        whole = [functional.pad(one, padding) if any(padding) else one for one in each]
        by_tap.append([part for one in whole for part in one.chunk(len(gradients.settings.arguments.parts))])
    return by_tap


def differences(found: Frames, expected: Frames) -> tuple[Difference, ...]:
    """Return the largest difference over draws, units and inputs, by tap."""
    by_tap = []
    for here, there in zip(found, expected, strict=True):
        pairs = [_difference(one, other) for one, other in zip(here, there, strict=True)]
        by_tap.append(Difference(max(one.largest for one in pairs), max(one.share for one in pairs)))
    return tuple(by_tap)


def _difference(found: Tensor, expected: Tensor) -> Difference:
    off = (found - expected).abs()
    return Difference(_ratio(off.max(), expected.abs().max()), _ratio(off.sum(), expected.abs().sum()))


def _ratio(part: Tensor, whole: Tensor) -> float:
    if not torch.isfinite(part):
        return float("inf")
    return float(part / whole) if whole > 0 else float("inf") if part > 0 else 0.0


def _off(found: Sequence[Difference]) -> str:
    worst = max(each.largest for each in found)
    if worst == float("inf"):
        return "gives a gradient that is not finite, or should be zero"
    return f"is off by {100 * worst:.3g} % of the gradient's largest value"


def _triples(one: Frames, two: Frames, three: Frames) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    for each in zip(one, two, three, strict=True):
        yield from zip(*each, strict=True)


def _last_place(gradients: BatchGradients) -> float:
    """Return the relative unit in the last place of products, as the run computes them."""
    precise = float(torch.finfo(gradients.like.dtype).eps)
    if gradients.settings.precision == "bfloat16":
        return max(precise, torch.finfo(torch.bfloat16).eps)
    if gradients.like.dtype != torch.float32:
        return precise
    return {"highest": precise, "high": 2.0**-10}.get(torch.get_float32_matmul_precision(), 2.0**-7)


def _companions(item: Located, count: int) -> list[Located]:
    """Make a batch of images that differ in contrast, brightness and detail, with the given one in the middle."""
    batch = [
        _changed(item, 0.4 + 1.7 * number / count, 0.3 * (-1) ** number, 0.1 + 0.2 * number / count, number + 1)
        for number in range(count)
    ]
    batch[count // 2] = item
    return batch


def _changed(item: Located, contrast: float = 1.0, offset: float = 0.0, noise: float = 0.0, number: int = 0) -> Located:
    """Change the contrast of an image, and add an offset and noise in units of its standard deviation."""
    sample = item.sample
    spread = float(sample.pixels.std()) or 1.0
    random = np.random.default_rng(number).standard_normal(sample.pixels.shape, dtype=np.float32)
    pixels = contrast * sample.pixels + np.float32(spread) * (np.float32(offset) + np.float32(noise) * random)
    image = replace(sample.image, number=sample.image.number + number)
    return replace(item, sample=replace(sample, image=image, pixels=pixels.astype(np.float32)))


def _nudged(item: Located, by: float, seed: int) -> Located:
    """Perturb an image at random, relative to each pixel and to the RMS value, in double precision."""
    pixels = item.sample.pixels.astype(np.float64)
    typical = float(np.sqrt((pixels**2).mean())) or 1.0
    random = np.random.default_rng(seed).standard_normal(pixels.shape, dtype=np.float32)
    return _with_pixels(item, pixels + by * random * (np.abs(pixels) + typical))


def _with_pixels(item: Located, pixels: Any) -> Located:
    return replace(item, sample=replace(item.sample, pixels=pixels))


def _move_parameters(gradients: BatchGradients, by: float, seed: int) -> None:
    """Perturb parameters at random, relative to each; call it within `Way.applied`, which restores them."""
    generator = torch.Generator(gradients.device).manual_seed(seed)
    for parameter in gradients.model.parameters():
        data = parameter.data
        if data.is_floating_point():
            random = torch.randn(data.shape, generator=generator, device=data.device).to(data.dtype)
            parameter.data = data * (1 + by * random)
