"""Measures of several ERFs with intervals, their differences, and tests of left against right."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from erf.comparison import formats
from erf.comparison.comparability import check_alike
from erf.comparison.estimate import Estimate, observed
from erf.errors import InputError
from erf.measures import BLOCKS_OF_A_FIELD, SIDE_MEASURES, Measure, Observations, measure_map, pick_measures
from erf.results import ERF, labels_of, shared_definition
from erf.storage import as_erf
from erf.text import as_names
from erf.uncertainty import Difference, Interval, Resampling, SidePermutations, contrast, left_right_tests
from erf.uncertainty.threads import map_in_threads

FEW = 10
"""Number of patients or images below which simulated intervals cover less than 92 % for some measures.

See docs/measures.md."""

_SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Entry:
    """One measure of one ERF."""

    interval: Interval
    difference: Difference | None = None
    """Difference to the first ERF; None for the first itself."""
    adjusted_p: float = float("nan")
    """p value of the difference, corrected for all differences of the table."""
    side_p: float = float("nan")
    """p value of a left-right measure under the hypothesis that sides do not matter."""


@dataclass(frozen=True, repr=False)
class ComparisonTable:
    """Measures in rows, ERFs in columns."""

    labels: tuple[str, ...]
    erfs: tuple[ERF, ...]
    subset: str
    definition: str
    measures: tuple[Measure, ...]
    entries: tuple[dict[str, Entry], ...]
    """Entries by ERF, then by measure."""
    area_ratios: tuple[dict[str, float], ...]
    """RepLKNet's measures of each mean map, which have no interval."""
    images: tuple[int, ...]
    spacings: tuple[float, ...]
    """Millimetres per pixel of each ERF; NaN if images differ or the value is unknown."""
    resampling: Resampling
    units: str
    """Resampling unit: 'images' or 'patients'."""
    notes: tuple[str, ...] = field(default=())

    def __getitem__(self, name: str) -> dict[str, Estimate]:
        """Return a measure of each ERF, by label, in the unit in which it is shown."""
        found = {measure.name: measure for measure in self.measures}
        if name not in found:
            raise InputError(f"no measure '{name}' in this table; it has {', '.join(found)}")
        return {label: self._estimate(index, found[name]) for index, label in enumerate(self.labels)}

    def _estimate(self, index: int, measure: Measure) -> Estimate:
        factor, unit = self.shown(index, measure)
        return Estimate.of(self.entries[index][measure.name].interval, factor, measure.name, unit)

    def to_markdown(self, *, millimetres: bool = False) -> str:
        """Return Markdown pipe tables."""
        return formats.to_markdown(self, millimetres)

    def to_latex(self, *, millimetres: bool = False) -> str:
        """Return LaTeX tabulars for the package booktabs."""
        return formats.to_latex(self, millimetres)

    def to_csv(self, *, millimetres: bool = False) -> str:
        """Return every number at full precision as CSV, one line per ERF and measure."""
        return formats.to_csv(self, millimetres)

    def to_json(self, *, millimetres: bool = False) -> str:
        """Return settings, notes and every number at full precision as JSON."""
        return formats.to_json(self, millimetres)

    def to_pandas(self) -> Any:
        """Return every number at full precision as a `pandas.DataFrame`, one row per ERF and measure."""
        import erf

        return erf.to_pandas(self)

    def __str__(self) -> str:
        return formats.to_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return formats.to_html(self)

    def shown(self, index: int, measure: Measure, millimetres: bool = False) -> tuple[float, str]:
        """Factor and unit in which a measure of an ERF is shown; in millimetres if all pixel spacings are known."""
        if millimetres and measure.is_length and np.isfinite(self.spacings).all():
            return self.spacings[index], "mm"
        return measure.factor, measure.unit

    def has_common_scale(self, index: int, measure: Measure, millimetres: bool = False) -> bool:
        """Whether a measure of an ERF and of the first is shown with the same factor, so that differences can be."""
        return self.shown(index, measure, millimetres)[0] == self.shown(0, measure, millimetres)[0]


def tabulate(
    erfs: Sequence[ERF],
    measures: Sequence[Measure],
    area_ratios: Sequence[str] = (),
    *,
    labels: Sequence[str] | None = None,
    subset: str = "all",
    definition: str = "abs",
    resampling: Resampling | None = None,
    by_patient: bool = True,
    allow_different: bool = False,
) -> ComparisonTable:
    """Measure and compare ERFs, as `compare` does with names of measures and files.

    Differences are to the first ERF, paired if the same images were used; their p values are corrected by the method
    of Benjamini and Hochberg.

    Args:
        erfs: ERFs, of which only the stored results are used.
        measures: Measures to compute.
        area_ratios: Names of RepLKNet's measures to add.
        labels: Column labels; the ERFs' titles if None.
        subset: Subset of images.
        definition: Definition of the map.
        resampling: Settings of intervals and tests; default if None.
        by_patient: Whether to resample whole patients if every image names one.
        allow_different: Whether ERFs may have been measured with different settings.

    Returns:
        The table with notes on its limitations.

    Raises:
        InputError: There are no ERFs, labels do not match, or settings differ.
    """
    if not erfs:
        raise InputError("nothing to compare: expected at least one ERF")
    names = labels_of(erfs, labels)
    resampling = resampling or Resampling()
    notes = [f"measured differently: {words}" for words in check_alike(erfs, allow_different)]
    several = [observed(erf, subset, definition, by_patient) for erf in erfs]
    entries = _entries(several, measures, resampling)
    units = "patients" if any(len(set(seen.groups)) < len(seen) for seen in several) else "images"
    notes += [*_notes_of_number(erfs, names, several, units), *_notes_of_sides(names, several, measures)]
    notes += [note for name, seen in zip(names, several, strict=True) for note in _withheld(name, seen, measures)]
    unpaired = [
        label
        for label, row in zip(names, entries, strict=True)
        if any(entry.difference is not None and not entry.difference.paired for entry in row.values())
    ]
    if unpaired:
        notes.append(f"differences of {', '.join(unpaired)} are not paired: not the same images as {names[0]}")
    return ComparisonTable(
        names,
        tuple(erfs),
        subset,
        definition,
        tuple(measures),
        _adjusted(entries),
        tuple(_ratios(erf, subset, definition, area_ratios) for erf in erfs),
        tuple(len(seen) for seen in several),
        tuple(seen.spacing for seen in several),
        resampling,
        units,
        tuple(notes),
    )


def compare(
    *erfs: ERF | str | Path,
    measures: Sequence[str] = (),
    labels: Sequence[str] | None = None,
    subset: str = "all",
    definition: str = "",
    resampling: Resampling | None = None,
    by_patient: bool = True,
    allow_different: bool = False,
) -> ComparisonTable:
    """Compare ERFs: measures with intervals, and differences to the first with p values.

    Args:
        erfs: One or more ERFs, or their files.
        measures: Names of measures; empty for the default ones, ('all',) for all.
        labels: Column labels; the ERFs' titles if None.
        subset: Subset of images.
        definition: Definition of the map; '' for the one that the first ERF shows by default.
        resampling: Settings of intervals and tests.
        by_patient: Whether to leave out and resample whole patients if every image names one.
        allow_different: Whether ERFs may have been measured with different settings.

    Returns:
        The table, which shows itself in a terminal and a notebook.

    Raises:
        InputError: A name does not exist, labels do not match, or settings differ.

    Example:
        >>> import torch, erf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 3, padding=1))
        >>> images = erf.load_images("phantom", n=4, size=(64, 48))
        >>> one, two = (erf.compute(model, images, layer=name, device="cpu", progress=False) for name in ("0", "1"))
        >>> table = erf.compare(one, two, measures=["rms_radius"], labels=["first", "second"], allow_different=True)
        >>> table["rms_radius"]["first"].value < table["rms_radius"]["second"].value
        True
    """
    if not erfs:
        raise InputError("nothing to compare: expected at least one ERF")
    loaded = [as_erf(erf) for erf in erfs]
    chosen, ratios = pick_measures(as_names(measures))
    return tabulate(
        loaded, chosen, ratios, labels=labels, subset=subset, definition=definition or shared_definition(loaded),
        resampling=resampling, by_patient=by_patient, allow_different=allow_different,
    )  # fmt: skip


def _withheld(name: str, seen: Observations, measures: Sequence[Measure]) -> list[str]:
    unresolved = [measure.name for measure in measures if not seen.resolves(measure.part)]
    if not unresolved:
        return []
    if not seen.small.any():
        return [f"the maps of {name} are zero everywhere: nothing can be measured"]
    return [
        f"{', '.join(unresolved)} withheld for {name}: half of its mass lies within {seen.extent:.0f} px, less than "
        f"{BLOCKS_OF_A_FIELD} of the blocks that its file keeps"
    ]


def _ratios(erf: ERF, subset: str, definition: str, names: Sequence[str]) -> dict[str, float]:
    return measure_map(erf.statistics(subset, definition).mean, names) if names else {}


def _notes_of_number(
    erfs: Sequence[ERF], labels: Sequence[str], observed: Sequence[Observations], units: str
) -> Iterator[str]:
    single = [label for erf, label in zip(erfs, labels, strict=True) if erf.is_mean_only]
    if single:
        yield f"imported without its images, and so without intervals: {', '.join(single)}"
    counts = [len(set(seen.groups)) for erf, seen in zip(erfs, observed, strict=True) if not erf.is_mean_only]
    fewest = min(counts, default=FEW)
    if fewest == 1:
        yield f"from a single {units.removesuffix('s')} there is no interval"
    elif fewest < FEW:
        yield f"{fewest} {units} are too few for intervals and p values to be relied on"


def _notes_of_sides(
    labels: Sequence[str], observed: Sequence[Observations], measures: Sequence[Measure]
) -> Iterator[str]:
    if not any(measure.name in SIDE_MEASURES for measure in measures):
        return
    for label, seen in zip(labels, observed, strict=True):
        permutations = SidePermutations(seen)
        if {"left", "right"} <= set(seen.sides) and permutations.least_p > _SIGNIFICANT:
            ways = "one way" if len(permutations) == 1 else f"{len(permutations)} ways"
            yield (
                f"the left-right test of {label} cannot be significant: sides can be exchanged in {ways} only, and the "
                f"smallest p is {permutations.least_p:.2g}; use more images, or more patients"
            )


def _entries(
    observed: Sequence[Observations], measures: Sequence[Measure], resampling: Resampling
) -> list[dict[str, Entry]]:
    tested = [measure for measure in measures if measure.name in SIDE_MEASURES]
    side_ps = map_in_threads(lambda seen: left_right_tests(seen, tested, resampling), observed)
    intervals, differences = contrast(observed, measures, resampling)
    return [
        {name: Entry(one, difference.get(name), side_p=sides.get(name, float("nan"))) for name, one in interval.items()}
        for interval, difference, sides in zip(intervals, [{}, *differences], side_ps, strict=True)
    ]


def _adjusted(entries: list[dict[str, Entry]]) -> tuple[dict[str, Entry], ...]:
    """Correct the p values of all differences together."""
    from scipy.stats import false_discovery_control  # takes two seconds, and pictures need none

    found = [
        (index, name, entry.difference.p)
        for index, row in enumerate(entries)
        for name, entry in row.items()
        if entry.difference is not None and np.isfinite(entry.difference.p)
    ]
    corrected = false_discovery_control([p for *_, p in found]) if found else []
    adjusted = [dict(row) for row in entries]
    for (index, name, _), p in zip(found, corrected, strict=True):
        old = adjusted[index][name]
        adjusted[index][name] = Entry(old.interval, old.difference, float(p), old.side_p)
    return tuple(adjusted)
