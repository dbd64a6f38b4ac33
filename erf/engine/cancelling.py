"""Layers of a run whose channels cancel, so that the gradient of their sum is rounding."""

from dataclasses import replace

import numpy as np

from erf.engine.batches import BatchGradients, LocatedSample
from erf.gradients.bands import banded
from erf.gradients.cancellation import channels_cancel

_CHANGE = 1e-3
"""Change of a sum over channels, relative to that of absolute values, from which it is not constant."""


def cancelling_layers(gradients: BatchGradients, item: LocatedSample) -> frozenset[str]:
    """Return the layers whose channels cancel, by one unit of each in an image.

    Layers whose sum over channels is another in the turned image are passed over: it is not constant.
    """
    suspects = _with_constant_sum(gradients, item)
    if not suspects:
        return frozenset()
    inputs, found = gradients.inputs([item]), {}
    for each in gradients.passes:
        for target, unit in zip(gradients.targets(each, [item], 0), each.units, strict=True):
            if unit.layer in suspects and unit.layer not in found:
                with gradients.seeds.applied(item.sample.image, 0), banded(each.prefix):
                    found[unit.layer] = channels_cancel(
                        gradients.model,
                        gradients.part(each, inputs),
                        target,
                        unit.trace.feature_shape[0],
                        gradients.settings.arguments,
                    )
    return frozenset(layer for layer, cancels in found.items() if cancels)


def _with_constant_sum(gradients: BatchGradients, item: LocatedSample) -> set[str]:
    """Return the layers of which a unit has the same sum over channels in an image and in the turned image."""
    turned = np.ascontiguousarray(item.sample.pixels[:, ::-1, ::-1])
    other = replace(item, sample=replace(item.sample, pixels=turned), upload=None)
    with gradients.seeds.applied(item.sample.image, 0):
        here = gradients.values([item])
    with gradients.seeds.applied(item.sample.image, 0):
        there = gradients.values([other])
    return {
        unit.layer
        for unit, values in here.items()
        if (values.sum() - there[unit].sum()).abs() <= _CHANGE * (values.abs().sum() + there[unit].abs().sum())
    }
