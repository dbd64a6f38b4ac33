"""Theory and measurement: the theoretical field of a unit, and the part that gradients on noise reach."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from erf.box import Box, is_inside
from erf.errors import InputError
from erf.gradients.autograd import Target, unit_gradients
from erf.network.inputs import Arrange, alone
from erf.network.layers import Unit
from erf.network.modes import frozen
from erf.theory.layers import MappedLayer
from erf.theory.tracing import Trace, blank

_TRIES = 4
"""Number of noise images: through a maximum a gradient reaches one pixel only, which differs between images."""


@dataclass(frozen=True)
class Probe:
    """The gradient of a unit, tried on noise."""

    map: NDArray[np.float64]
    """(H, W), mean absolute gradient."""
    center: tuple[float, float]
    """(y, x) of the unit, in pixels."""

    @property
    def box(self) -> Box[int] | None:
        """Bounding box of the non-zero gradient; None if it is zero everywhere."""
        rows, columns = np.flatnonzero(self.map.sum(1)), np.flatnonzero(self.map.sum(0))
        if not len(rows):
            return None
        return Box(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)

    def lies_in(self, box: Box[int]) -> bool:
        """Whether the gradient is zero outside a box."""
        return self.box is None or is_inside(self.box, box)

    def reach(self, share: float) -> int:
        """Pixels from the unit's centre, along the farther axis, within which this share of the gradient lies."""
        if not 0 < share <= 1:
            raise InputError(f"share {share:g}; expected more than 0 and at most 1")
        y, x = (np.abs(np.arange(length) - place) for length, place in zip(self.map.shape, self.center, strict=True))
        distance = np.ceil(np.maximum(y[:, None], x[None, :])).astype(int)
        sums = np.bincount(distance.ravel(), weights=self.map.ravel()).cumsum()
        # The last sum is the whole: rounding must not keep a share of 1 from being reached.
        return int(np.searchsorted(sums, share * sums[-1] * (1 - 1e-12)))

    @property
    def touches_border(self) -> bool:
        """Whether an edge row or column carries a thousandth of the largest row's or column's gradient."""
        rows, columns = self.map.sum(1), self.map.sum(0)
        curves = [curve for curve in (rows, columns) if len(curve) > 1 and curve.max() > 0]
        return any(max(curve[0], curve[-1]) > 1e-3 * curve.max() for curve in curves)


def probe(
    model: nn.Module, layer: str, unit: Unit, traced: Trace, input_shape: Sequence[int], arrange: Arrange = alone
) -> Probe:
    """Gradients of a unit with respect to a few images of noise (C, H, W), absolute and averaged."""
    like = blank(model, ())
    target = Target(layer, (unit,), traced.layout)
    total = np.zeros(tuple(input_shape[-2:]))
    with frozen(model):
        for seed in range(_TRIES):
            noise = torch.randn((1, *input_shape), generator=torch.Generator().manual_seed(seed)).to(like)
            (gradient,) = unit_gradients(model, noise, [target], arrange)
            total += gradient[0].double().abs().sum(0).cpu().numpy()
    y, x = traced.field.center(unit)[-2:] if len(unit) > 1 else (0.0, traced.field.center(unit)[0])
    return Probe(total / _TRIES, (y, x))


def theoretical_box(traced: Trace, unit: Unit, size: Sequence[int]) -> Box[int]:
    """Return the theoretical receptive field of a unit, clipped to an image of (height, width)."""
    axes, indices = traced.field.axes[-2:], unit[-2:]
    if traced.field.kind != "finite":
        return Box.whole(size)
    boxes = [axis.box(index, length) for axis, index, length in zip(axes, indices, size[-len(axes) :], strict=True)]
    return Box.of_axes(*(boxes if len(boxes) > 1 else [(0, 1), *boxes]))


def border_layer(points: Sequence[MappedLayer], size: Sequence[int]) -> MappedLayer | None:
    """The first layer whose field is larger than the image of (height, width): from there on, units see padding.

    After Richter et al. (arXiv 2106.12307), who take layers behind it for unproductive.
    """
    for point in points:
        fields = point.trace.field.size[-2:]
        if any(field > length for field, length in zip(fields, size[-len(fields) :], strict=True)):
            return point
    return None
