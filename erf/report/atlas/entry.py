"""One row of an atlas: what is known of one network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from erf.comparison import Estimate
from erf.errors import InputError
from erf.measures import Measure, observe
from erf.plotting.panels import shrink
from erf.results import ERF, SHIPPED, Provenance
from erf.uncertainty import estimate

PIXELS = 112
"""Longest side of a thumbnail."""


@dataclass(frozen=True)
class Entry:
    """A network with its field, or with the reason why there is none."""

    label: str
    reason: str = ""
    """Why there is no field; '' if there is one."""
    remark: str = ""
    """A warning about the field; '' if there is none."""
    file: str = ""
    """Path of its ERF file; '' for maps of other programs."""
    origin: Provenance | None = None
    images: int | None = None
    """Number of images; None where it is not known."""
    definition: str = ""
    estimates: Mapping[str, Estimate] = field(default_factory=dict)
    """Measures by name, with intervals, in the units in which they are shown."""
    density: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    """Share of the mass per pixel, as means over square blocks."""
    mean: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    """The map itself over these blocks."""

    @property
    def kind(self) -> str:
        """'untrained', 'trained', 'imported' or 'failed'."""
        if self.origin is None:
            return "failed"
        if self.origin.imported:
            return "imported"
        return "trained" if self.origin.weights else "untrained"

    @property
    def weights(self) -> str:
        """The weights in a few words."""
        if self.origin is None:
            return ""
        return "shipped" if self.origin.weights.startswith(SHIPPED) else self.origin.weights_text

    @property
    def parameters(self) -> int | None:
        """Number of parameters; None where it is not known."""
        return (self.origin.parameters or None) if self.origin else None


def entry_of(erf: ERF, label: str, measures: Sequence[Measure], definition: str, file: str = "") -> Entry:
    """Measure a field; `InputError` if its map is zero everywhere, or may be negative."""
    shown, subset = definition or erf.definition, "all" if "all" in erf.subsets else next(iter(erf.subsets))
    seen, mean = observe(erf, subset, shown), erf.statistics(subset, shown).mean
    messages = (image.message for image in erf.images if image.status == "ok" and image.message)
    remark, total = next(messages, ""), float(mean.sum(dtype=np.float64))
    if not total:
        raise InputError(f"the map is zero everywhere{f': {remark}' if remark else ''}")
    small = shrink(mean, PIXELS)[0].astype(np.float64)
    found = estimate(seen, measures)
    estimates = {each.name: Estimate.of(found[each.name], each.factor, each.name, each.unit) for each in measures}
    return Entry(
        label=label, remark=remark, file=file, origin=erf.provenance, definition=shown,
        images=None if erf.is_mean_only else len(seen), estimates=estimates, density=small / total, mean=small,
    )  # fmt: skip


def labelled(entries: Sequence[Entry]) -> list[Entry]:
    """Number the labels that several entries share."""
    labels = [each.label for each in entries]
    return [
        replace(each, label=f"{each.label} ({labels[: place + 1].count(each.label)})")
        if labels.count(each.label) > 1
        else each
        for place, each in enumerate(entries)
    ]
