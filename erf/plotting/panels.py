"""Content of ERF figures, independent of the drawing library: panels, scales and texts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from erf.definitions import DEFAULT_DEFINITION
from erf.errors import InputError
from erf.images.thumbnail import block_means
from erf.measures import Observations, observe, stretch_length
from erf.plotting.coloring import Coloring, Limits
from erf.results import ERF, Curve, Map, Statistics, labels_of
from erf.results.grid import Array
from erf.text import as_names

PAPER_COLORS = {"gmic": "#1f77b4", "def-gmic": "#2ca02c", "hct": "#ff7f0e"}
"""Blue, green and orange as in the figures of the HCT paper."""

_OTHER_COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#9467bd", "#d62728", "#8c564b", "#e377c2", "#7f7f7f")
_FIRST_SUBSETS = ("all", "left", "right")


SHARES = (0.5, 0.9, 0.99)
"""Shares of the mass that contours enclose."""

_MAP_PIXELS = 832


@dataclass(frozen=True)
class Panel:
    """Map and curves of one ERF and subset, for display."""

    map: NDArray[np.float32]
    """Means over square blocks, scaled to a largest magnitude of 1."""
    largest: float
    """The magnitude that was scaled to 1."""
    total: float
    """Sum of the magnitudes of all pixels of the mean."""
    block: int
    """Side of the blocks, in pixels."""
    across_rows: NDArray[np.float64]
    """Share of the total per pixel, in thousandths."""
    across_columns: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Comparison:
    """ERFs that are drawn together: one definition, the subsets that all of them have."""

    erfs: tuple[ERF, ...]
    labels: tuple[str, ...]
    colors: tuple[str, ...]
    definition: str
    subsets: tuple[str, ...]
    panels: Mapping[tuple[int, str], Panel]
    """Panels by index of the ERF and subset."""
    coloring: Coloring = field(default_factory=Coloring)
    """Colours of the maps."""
    shares: tuple[float, ...] = SHARES
    """Shares of the mass that contours enclose, in rising order."""
    _observed: dict[tuple[int, str], Observations] = field(default_factory=dict)
    _limited: dict[tuple[int, str], Limits] = field(default_factory=dict)

    @property
    def signed(self) -> bool:
        return self.definition == "signed"

    @property
    def stretch(self) -> int:
        """Bin width in pixels of the smoothed, solid curves."""
        return stretch_length(max(self.size))

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the input, in pixels."""
        return self.erfs[0].provenance.input_shape[1:]

    def observed(self, index: int, subset: str) -> Observations:
        """Observations of an ERF's subset, read once."""
        key = index, subset
        if key not in self._observed:
            self._observed[key] = observe(self.erfs[index], subset, self.definition)
        return self._observed[key]

    def shown(self, index: int, subset: str, values: NDArray[np.floating] | None = None) -> Array:
        """A map on its colour scale; `values` replaces that of its panel, such as means over larger blocks."""
        relative = self.panels[index, subset].map if values is None else values
        return self.coloring.shown(relative * self._unit(index, subset), self._limits(index, subset))

    def _unit(self, index: int, subset: str) -> float:
        """Factor of a panel's map before it is coloured."""
        panel = self.panels[index, subset]
        if self.coloring.is_absolute or not self.coloring.joint:
            return panel.largest if self.coloring.is_absolute else 1.0
        return panel.largest / panel.total if panel.total else 0.0

    def _limits(self, index: int, subset: str) -> Limits:
        keys = list(self.panels) if self.coloring.joint else [(index, subset)]
        if keys[0] not in self._limited or not self.coloring.joint:
            values = np.concatenate([(self.panels[key].map * self._unit(*key)).ravel() for key in keys])
            self._limited[keys[0]] = self.coloring.limits(values, self.signed)
        return self._limited[keys[0]]

    def counted(self, subset: str) -> str:
        """Number of images of a subset in each ERF, in words."""
        return f"N = {' / '.join(dict.fromkeys(number_of_images(erf, subset) for erf in self.erfs))}"


def number_of_images(erf: ERF, subset: str) -> str:
    """Number of images of a subset; not known of a single imported map."""
    return "not known" if erf.is_mean_only else str(erf.count(subset))


def compare(
    erfs: Sequence[ERF],
    labels: Sequence[str] | None = None,
    definition: str = DEFAULT_DEFINITION,
    subsets: Sequence[str] | None = None,
    coloring: Coloring | None = None,
    shares: Sequence[float] = SHARES,
    any_size: bool = False,
) -> Comparison:
    """Collect ERFs for a common figure; raise `InputError` if something is missing or differs.

    Args:
        erfs: One or more ERFs, of one input size unless `any_size` is set.
        labels: Labels of the ERFs; their titles if None.
        definition: Definition of the maps.
        subsets: Names of subsets; None for those that all ERFs have.
        coloring: Colours of the maps; the default ones if None.
        shares: Shares of the mass that contours enclose.
        any_size: Whether the figure has no axes in pixels that all ERFs share.
    """
    if not erfs:
        raise InputError("nothing to plot: expected at least one ERF")
    if not any_size:
        common_size(erfs)
    if not shares or not all(0 < share < 1 for share in shares):
        raise InputError(f"shares {', '.join(f'{share:g}' for share in shares)}; expected some between 0 and 1")
    shared = [name for name in erfs[0].subsets if all(name in erf.subsets for erf in erfs)]
    chosen = as_names(subsets) or tuple(sorted(shared, key=_subset_order))
    names = labels_of(erfs, labels)
    panels = {
        (index, subset): _panel(erf.statistics(subset, definition))
        for subset in chosen
        for index, erf in enumerate(erfs)
    }
    colors = model_colors(erfs)
    return Comparison(
        tuple(erfs), names, colors, definition, chosen, panels, coloring or Coloring(), tuple(sorted(shares))
    )


def common_size(erfs: Sequence[ERF]) -> tuple[int, int]:
    """Input size (height, width) of all ERFs; raise `InputError` if they have several."""
    sizes = {erf.provenance.input_shape[1:] for erf in erfs}
    if len(sizes) > 1:
        found = ", ".join(f"{height}x{width}" for height, width in sorted(sizes))
        raise InputError(f"the ERFs have input sizes {found}; expected one size to draw them on the same axes")
    return sizes.pop()


def _panel(statistics: Statistics) -> Panel:
    small, block = shrink(statistics.mean, _MAP_PIXELS)
    largest, total = float(np.abs(small).max()), float(np.abs(statistics.mean).sum(dtype=np.float64))
    return Panel(
        _relative(small), largest, total, block, _share(statistics.across_rows), _share(statistics.across_columns)
    )


def _subset_order(name: str) -> tuple[int, str]:
    return (_FIRST_SUBSETS.index(name) if name in _FIRST_SUBSETS else len(_FIRST_SUBSETS), name)


def model_colors(erfs: Sequence[ERF]) -> tuple[str, ...]:
    """Colours of ERFs: the paper's for its models, once each; the next free one for all others."""
    models = [erf.provenance.model for erf in erfs]
    taken: list[str] = []
    for model in models:
        color = PAPER_COLORS.get(model, "")
        if not color or color in taken:
            reserved = [PAPER_COLORS[name] for name in models if name in PAPER_COLORS]
            free = [other for other in _OTHER_COLORS if other not in taken and other not in reserved]
            color = free[0] if free else _OTHER_COLORS[len(taken) % len(_OTHER_COLORS)]
        taken.append(color)
    return tuple(taken)


def shrink(values: Map, longest: int) -> tuple[NDArray[np.float32], int]:
    """Mean over square blocks so that the longer side has at most `longest` of them; also the block's side."""
    block = math.ceil(max(values.shape) / longest)
    return block_means(values, block), block


def _relative(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Scaled to a largest magnitude of 1."""
    largest = float(np.abs(values).max())
    return np.asarray(values / largest if largest > 0 else values, dtype=np.float32)


def _share(curve: Curve) -> NDArray[np.float64]:
    """Curve in thousandths of its total magnitude, so that curves of different models can be overlaid."""
    total = float(np.abs(curve).sum())
    return np.asarray(curve * (1000 / total) if total > 0 else curve, dtype=np.float64)


def square_root(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """Square root of the magnitude, with the sign kept."""
    return np.asarray(np.sign(values) * np.sqrt(np.abs(values)))


def describe_field(erf: ERF) -> str:
    """The theoretical receptive field in words."""
    height, width = erf.provenance.field_size
    if erf.provenance.field_kind == "unknown":
        return "not known"
    if not math.isfinite(height * width):
        return "data-dependent" if erf.provenance.field_kind == "data-dependent" else "the whole image"
    return f"{height:.0f} × {width:.0f} px"


def caption(comparison: Comparison) -> str:
    """Description of the measured quantity and of its colours, for the foot of a figure."""
    meaning = {
        "signed": "mean gradient",
        "abs": "mean absolute gradient",
        "relu": "mean positive gradient",
        "square": "mean squared gradient",
    }[comparison.definition]
    lines = [
        f"Definition '{comparison.definition}': {meaning} of the unit with respect to each input pixel. "
        "Curves are shares of their total"
        + (f", pale for every pixel, solid for means over {comparison.stretch} px." if comparison.stretch > 1 else ".")
    ]
    if comparison.coloring != Coloring():
        colors = comparison.coloring.color_map(comparison.signed)
        lines.append(f"Colours of the maps: {comparison.coloring.describe()}; {colors}.")
    for label, erf in zip(comparison.labels, comparison.erfs, strict=True):
        origin = erf.provenance
        model = "" if label == origin.title else f"{origin.title}, "
        lines.append(
            f"{label} ({model}{origin.weights_text}): {origin.target} "
            f"centred at y {origin.unit_center[0]:g}, x {origin.unit_center[1]:g} px; "
            f"theoretical receptive field {describe_field(erf)}."
        )
    return "\n".join(lines)
