"""Layers of a run whose channels cancel, so that the gradient of their sum is rounding."""

from erf.engine.batches import BatchGradients, LocatedSample
from erf.gradients.autograd import Target
from erf.gradients.bands import banded
from erf.gradients.cancellation import channels_cancel


def cancelling_layers(gradients: BatchGradients, item: LocatedSample) -> frozenset[str]:
    """Return the layers whose channels cancel, by one unit of each in an image."""
    inputs = gradients.inputs([item])
    found: dict[str, bool] = {}
    for each in gradients.passes:
        targets: dict[str, Target] = {}
        for target in gradients.targets(each, [item], 0):
            if target.layer not in found:
                targets.setdefault(target.layer, target)
        if not targets:
            continue
        with gradients.seeds.applied(item.sample.image, 0), banded(each.prefix):
            cancel = channels_cancel(
                gradients.model, gradients.part(each, inputs), [*targets.values()], gradients.settings.arguments
            )
        found |= zip(targets, cancel, strict=True)
    return frozenset(layer for layer, cancels in found.items() if cancels)
