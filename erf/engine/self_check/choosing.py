"""Choice of the fastest way of computing that agrees with the plain one on an image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch.nn import functional

from erf.engine.batches import BatchGradients, LocatedSample
from erf.engine.passes import PassPlan
from erf.engine.self_check.differences import Differences
from erf.engine.self_check.perturbation import varied
from erf.engine.self_check.reference import Reference
from erf.engine.self_check.trial import Trial
from erf.engine.units import MeasuredUnit
from erf.gradients.units import MAX
from erf.gradients.way import PLAIN, Way

_FLAT = 0.01
"""Largest difference between neighbouring pixels of a blank background, relative to the image's standard deviation."""


@dataclass(frozen=True)
class Choice:
    """The way in which a run computes, and why."""

    way: Way
    record: Mapping[str, str]
    """Entries for the file."""
    differences: Differences = field(default_factory=dict)
    """Differences between the fast and the plain way, by measured unit; empty where they were not compared."""
    warning: str = ""
    """One line if the fast way is not used or could not be checked; otherwise ''."""

    def record_of(self, unit: MeasuredUnit) -> dict[str, str]:
        """Return the record for one measured unit, with its differences."""
        if unit not in self.differences:
            return dict(self.record)
        difference = self.differences[unit]
        return dict(self.record) | {"difference": difference.largest_text, "in all": difference.share_text}


def unchecked(way: Way, reason: str, warns: bool = False) -> Choice:
    """Choose a way without comparing it, for a reason that is recorded, and warned of if `warns`."""
    warning = f"self-check: the run was not checked, {reason}" if warns else ""
    return Choice(way, {"result": f"not checked: {reason}", "way": way.description}, warning=warning)


def choose_for_image(fast: Way, gradients: BatchGradients, passes: PassPlan, item: LocatedSample) -> Choice | None:
    """Choose the fast way if it agrees with the plain one on an image, otherwise the first simpler way that does.

    Args:
        fast: the way to check.
        gradients: computation of gradients in the fast way.
        passes: passes of all ways.
        item: the image.

    Returns:
        The choice; None where the plain gradient of this image is not finite.
    """
    plain = replace(gradients, passes=passes.in_way(PLAIN))
    references = _references(plain, item)
    if not references:
        return None
    noisy = _references(plain, varied(item, noise=1.0))[-1:] if _is_blank(references[0]) else []
    references += noisy
    trial = _try(fast, passes, references)
    if not trial.agrees and trial.refutes_plain:
        alone, fast_passes = replace(fast, batch_size=1), passes.in_way(fast)
        references = [
            replace(each, way=alone, gradients=replace(each.gradients, passes=fast_passes)) for each in references
        ]
        trial = _try(fast, passes, references)
    compared = f"{item.sample.image.number}{', also with noise' * bool(noisy)}"
    record = {"image": compared, "compared": trial.way.description}
    if trial.reference.way != PLAIN:
        record["plain way"] = "wrong, by differences of values"
    if trial.agrees:
        return Choice(trial.way, {"result": "agrees"} | record | {"way": trial.way.description}, trial.differences)
    if not trial.reference.is_repeatable:
        return _unrepeatable(trial, record)
    return _fallen_back(fast, passes, trial, references, record)


def _unrepeatable(trial: Trial, record: Mapping[str, str]) -> Choice:
    """Choose the plain way for a network whose gradients differ from call to call."""
    result = {"result": "the network gives another gradient at every call", "way": PLAIN.description}
    warning = (
        "self-check: the network gives another gradient at every call, though it draws no random numbers that a seed "
        "would fix, so that results depend on the order of images; the run goes on in the plain way"
    )
    return Choice(PLAIN, dict(record) | result, trial.differences, warning)


def _fallen_back(
    fast: Way, passes: PassPlan, trial: Trial, references: Sequence[Reference], record: Mapping[str, str]
) -> Choice:
    """Choose the first simpler way that agrees with the plain one."""
    trials = (_try(way, passes, references) for way in fast.simpler() if way != PLAIN)
    way = next((each.way for each in trials if each.agrees), PLAIN)
    result = {"result": "fell back", "reason": trial.reason, "way": way.description}
    warning = (
        f"self-check: the fast way ({trial.way.description}) {trial.reason}; the run goes on with {fast.changes(way)}, "
        "which agrees with the plain way"
    )
    return Choice(way, dict(record) | result, trial.differences, warning)


def _is_blank(reference: Reference) -> bool:
    """Whether at least half of a gradient lies where the image is flat, so that it says nothing about other images."""
    pixels = torch.from_numpy(reference.item.sample.pixels).to(reference.gradients.like.device, torch.float32)
    highest, lowest = (sign * functional.max_pool2d(sign * pixels, 3, 1, 1) for sign in (1, -1))
    is_flat = (highest - lowest).amax(0) <= _FLAT * pixels.std(correction=0)
    sizes = (one.abs() for each in reference.frames.values() for one in each)
    return any(bool(2 * size[:, is_flat].sum() >= size.sum()) for size in sizes)


def _references(plain: BatchGradients, item: LocatedSample) -> list[Reference]:
    """Return the plain gradients of an image, in the run's precision first; none where they are not finite."""
    if plain.settings.unit == MAX:
        with PLAIN.applied(plain.model, plain.device):
            (item,) = plain.strongest([item])
    references = [Reference(plain, item)]
    if plain.settings.precision == "bfloat16":
        # Its rounding could hide a defect that full precision reveals.
        full = replace(plain.settings, precision="float32")
        references.append(Reference(replace(plain, settings=full), item))
    return references if all(reference.is_finite for reference in references) else []


def _try(way: Way, passes: PassPlan, references: Sequence[Reference]) -> Trial:
    """Try a way on all references; return the first trial that disagrees, otherwise that in the run's precision."""
    trials = []
    for reference in references:
        gradients = replace(reference.gradients, passes=passes.in_way(way))
        trials.append(Trial.of(way, gradients, reference))
        way = trials[-1].way
        if not trials[-1].agrees:
            return trials[-1]
    return replace(trials[0], way=way)
