"""Figures of measures against the depth of the layer or the number of images."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.ticker import NullLocator, ScalarFormatter

from erf.errors import InputError
from erf.measures import MEASURES
from erf.plotting.coloring import LOG_DECADES, Coloring
from erf.plotting.figure import draw_intervals, extent, foot, mark_unit, new_figure
from erf.plotting.panels import Comparison
from erf.plotting.saving import Figure
from erf.results import unit_labels
from erf.text import for_matplotlib
from erf.uncertainty import Resampling, convergence, estimate

_DRAWING = Resampling(resamples=500)
_RADII = {"rms_radius": ("rms", "#2ca02c"), "r50": ("r50", "#1f77b4"), "r90": ("r90", "#ff7f0e")}
_CONVERGING = ("r50", "effective_area", "shift_x", "shift_y", "variability")


def draw_growth(comparison: Comparison) -> Figure:
    """One row per network: the maps of its layers, from input to output, and how wide they are."""
    networks = _by_network(comparison)
    longest = max(map(len, networks))
    if longest < 2:
        raise InputError("growth: found one layer of each network; expected files of two or more layers of one")
    subset = comparison.subsets[0]
    height, width = comparison.size
    widths = [max(1.0, 2.1 * width / height)] * longest + [3.6]
    size = (sum(widths) + 0.25 * len(widths) + 1.0, 2.9 * len(networks) + 1.3 + 0.17 * len(networks))
    figure, grid = new_figure(size, len(networks), widths)
    for row, members in enumerate(networks):
        for column, axis in enumerate(grid[row, :longest]):
            axis.set_visible(column < len(members))
            if column < len(members):
                _draw_layer(axis, comparison, members[column], subset, _names(comparison, members)[column])
                axis.tick_params(labelleft=column == 0)
        origin = comparison.erfs[members[0]].provenance
        grid[row, 0].set_ylabel(f"{origin.title}\n{subset}, {comparison.counted(subset)}\n\ny [px]", fontsize=8.5)
        _draw_widths(grid[row, longest], comparison, members, subset)
    grid[0, longest].legend(fontsize=7.5, frameon=False, loc="upper left")
    colors = ScalarMappable(Normalize(-LOG_DECADES, 0), "viridis")
    bar = figure.colorbar(colors, ax=list(grid[:, :longest].flat), location="bottom", aspect=50, shrink=0.9, pad=0.01)
    bar.set_label("share of the map's maximum, powers of ten", fontsize=8)
    bar.ax.tick_params(labelsize=7.5)
    words = (
        "Cross: the unit's centre; dashed: theoretical receptive field, on the right half its side, absent where it is "
        "infinite.\nrms: root mean squared distance of the mass; r50, r90: radii that hold 50 and 90 % of it. "
        "Bands: 95 % intervals."
    )
    figure.supxlabel(f"Definition '{comparison.definition}'. {words}", fontsize=8, x=0.01, ha="left")
    return figure


def _by_network(comparison: Comparison) -> list[list[int]]:
    """Indices of the ERFs of each network, from input to output."""

    def network(index: int) -> tuple[str, str, int]:
        origin = comparison.erfs[index].provenance
        return origin.title, origin.weights_sha256, origin.seed

    first: dict[tuple[str, str, int], int] = {}
    for index in range(len(comparison.erfs)):
        first.setdefault(network(index), index)
    order = sorted(
        range(len(comparison.erfs)), key=lambda index: (first[network(index)], comparison.erfs[index].provenance.depth)
    )
    return [list(members) for _, members in groupby(order, key=network)]


def _names(comparison: Comparison, members: Sequence[int]) -> list[str]:
    return unit_labels([comparison.erfs[index].provenance for index in members])


def _draw_layer(axis: Axes, comparison: Comparison, index: int, subset: str, name: str) -> None:
    erf = comparison.erfs[index]
    values = Coloring("log").shown(comparison.panels[index, subset].map, (0.0, 1.0))
    axis.imshow(values, cmap="viridis", vmin=0, vmax=1, extent=extent(comparison), interpolation="nearest")
    mark_unit(axis, erf, "white")
    axis.set_title(name, fontsize=8.5)
    axis.set_xlabel("x [px]", fontsize=8)
    axis.tick_params(labelsize=7)


def _draw_widths(axis: Axes, comparison: Comparison, members: list[int], subset: str) -> None:
    places = np.arange(len(members))
    measures = [MEASURES[name] for name in _RADII]
    found = [estimate(comparison.observed(index, subset), measures, _DRAWING) for index in members]
    for name, (label, color) in _RADII.items():
        draw_intervals(axis, places, [found[place][name] for place in places], color, label)
    fields = [min(comparison.erfs[index].provenance.field_size) / 2 for index in members]
    axis.plot(places, np.where(np.isfinite(fields), fields, np.nan), "k--", lw=0.9, label="half the theoretical field")
    axis.set_xticks(
        places, list(map(for_matplotlib, _names(comparison, members))), rotation=40, ha="right", fontsize=7.5
    )
    axis.set_yscale("log")
    axis.set_ylabel("radius [px]", fontsize=8.5)
    axis.tick_params(axis="y", labelsize=7.5)
    axis.grid(alpha=0.25, lw=0.5)


def draw_convergence(comparison: Comparison) -> Figure:
    """Draw measures and their intervals on the first n images, for increasing n, to show whether there are enough."""
    subset = comparison.subsets[0]
    figure, grid = new_figure(
        (3.3 * len(_CONVERGING) + 0.4, 3.5 + 0.17 * len(comparison.erfs)), 1, [3.3] * len(_CONVERGING)
    )
    for axis, name in zip(grid[0], _CONVERGING, strict=True):
        measure = MEASURES[name]
        for index, (label, color) in enumerate(zip(comparison.labels, comparison.colors, strict=True)):
            points = convergence(comparison.observed(index, subset), measure, _DRAWING)
            numbers, intervals = zip(*points, strict=True)
            draw_intervals(axis, numbers, intervals, color, label, measure.factor)
        axis.set_title(f"{name} [{measure.unit}]" if measure.unit else name, fontsize=10)
        axis.set_xscale("log")
        axis.set_xticks(numbers[:: max(1, len(numbers) // 5)], labels=None)
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlabel("images", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25, lw=0.5, which="both")
    grid[0, 0].legend(fontsize=8, frameon=False)
    foot(figure, comparison, f"Subset {subset}; bands: 95 % intervals over the first n images, sides in turn.")
    return figure
