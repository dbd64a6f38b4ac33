"""Reference of the self-check: the plain gradient of an image, and the possible effect of rounding on it."""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from erf.engine.batches import BatchGradients, LocatedSample
from erf.engine.self_check.differences import FrameGradients, are_finite, are_within, on_frame, together
from erf.engine.self_check.perturbation import nudge_parameters, nudged, varied, with_pixels
from erf.engine.units import MeasuredUnit
from erf.gradients.saved_tensors import saved_on_disk
from erf.gradients.way import PLAIN, Way

_TIGHT, _COARSEST = 2.0**13, 2.0**-8
"""Units in the last place by which gradients may differ without further tests, relative to the largest value and to
the sum of absolute values; at most 0.4 %."""

_MOVE = 16.0
"""Units in the last place by which inputs and parameters are perturbed; at most 0.4 %."""

_PAIRS = 3
"""Number of perturbations, each with both signs, so that one of them crosses a nearby kink."""

_TIMES = 8.0
"""Tolerance at a pixel, as a multiple of the change that perturbations make there."""

TIES, KINKS = 32, 2
"""Radii in pixels within which the change of a pixel is searched: ties move to other pixels, kinks stay in place."""

TEXTURE = 0.02
"""Amplitude of the texture, relative to the image's standard deviation: far above rounding."""

_STEP = 0.01
"""Step of a central difference, in standard deviations of the image."""


@dataclass
class Reference:
    """Plain gradient of an image, and the possible effect of rounding on it."""

    gradients: BatchGradients
    item: LocatedSample
    way: Way = PLAIN
    """Way of the reference; not the plain one where finite differences have refuted the plain gradient."""
    eps: float = field(init=False)

    def __post_init__(self) -> None:
        self.eps = _last_place(self.gradients)
        self.tolerance = tolerance_of(self.eps)

    @cached_property
    def frames(self) -> FrameGradients:
        return self._plain(self.item)

    def _plain(self, item: LocatedSample, move: float = 0.0, seed: int = 0) -> FrameGradients:
        with self.way.applied(self.gradients.model, self.gradients.device), saved_on_disk():
            if move:
                nudge_parameters(self.gradients, move, seed)
            (image,) = self.gradients.of([item])
        return on_frame(self.gradients, image)

    def slope(self, unit: MeasuredUnit, along: Tensor) -> float:
        """Return the directional derivative of a unit's value, by a central difference."""
        step = _STEP * float(self.item.sample.pixels.std() or 1.0) / float(along.abs().max())
        pixels, way = self.item.sample.pixels.astype(np.float64), along.double().cpu().numpy()
        with PLAIN.applied(self.gradients.model, self.gradients.device):
            ahead, behind = (
                float(self.gradients.values([with_pixels(self.item, pixels + side * step * way)])[unit].double().sum())
                for side in (1, -1)
            )
        return (ahead - behind) / (2 * step)

    @property
    def is_finite(self) -> bool:
        return are_finite(self.frames)

    @cached_property
    def is_repeatable(self) -> bool:
        """Whether a second plain pass gives the same gradient."""
        return are_within(self.tolerance, self._plain(self.item), self.frames)

    @cached_property
    def textured(self) -> "Reference":
        """The reference for the image with added noise."""
        return replace(self, item=varied(self.item, noise=TEXTURE))

    @cached_property
    def rounding(self) -> FrameGradients:
        """Largest change of the plain gradient under perturbations of inputs and parameters, by pixel."""
        by = min(_MOVE * self.eps, _COARSEST)
        largest = {unit: [torch.zeros_like(one) for one in each] for unit, each in self.frames.items()}
        for seed in range(_PAIRS):
            for move in (by, -by):
                item = nudged(self.item, move, seed)
                for before, now, plain in together(largest, self._plain(item, move, seed), self.frames):
                    torch.maximum(before, (now - plain).abs(), out=before)
        return largest

    def explains(self, computed: FrameGradients, reach: int) -> bool:
        """Whether gradients differ from the plain ones by no more than rounding explains within `reach` pixels."""
        triples = together(computed, self.frames, self.rounding)
        return all(self._explains(one, plain, rounding, reach) for one, plain, rounding in triples)

    def _explains(self, computed: Tensor, plain: Tensor, rounding: Tensor, reach: int) -> bool:
        off = (computed - plain).abs()
        around = functional.max_pool2d(rounding[None].float(), (2 * reach + 1, 1), 1, (reach, 0))
        around = functional.max_pool2d(around, (1, 2 * reach + 1), 1, (0, reach))[0]
        is_near = bool((off <= self.tolerance * plain.abs().max() + _TIMES * around).all())
        return is_near and bool(off.sum() <= self.tolerance * plain.abs().sum() + _TIMES * rounding.sum())


def tolerance_of(eps: float) -> float:
    """Return the difference, relative to the largest value, that rounding explains for a relative last place."""
    return min(_TIGHT * eps, _COARSEST)


def _last_place(gradients: BatchGradients) -> float:
    """Return the relative unit in the last place of products, as the run computes them."""
    precise = float(torch.finfo(gradients.like.dtype).eps)
    if gradients.settings.precision == "bfloat16":
        return max(precise, torch.finfo(torch.bfloat16).eps)
    if gradients.like.dtype != torch.float32:
        return precise
    return {"highest": precise, "high": 2.0**-10}.get(torch.get_float32_matmul_precision(), 2.0**-7)
