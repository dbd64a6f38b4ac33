"""Further arrangements of static pictures: those of the HCT paper, differences, radial profiles."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, TwoSlopeNorm

from erf.errors import InputError
from erf.measures import Observations, smooth
from erf.plotting.contours import draw_contours
from erf.plotting.figure import draw_figure, extent, foot, format_blocks, label_map, mark_unit, new_figure
from erf.plotting.panels import Comparison, square_root
from erf.plotting.ranks import draw_ranks
from erf.plotting.saving import Figure
from erf.plotting.trends import draw_convergence, draw_growth
from erf.results import ERF
from erf.results.grid import Array
from erf.uncertainty import Resampling, bands

_PAPER_ORDER = {"all": "both", "right": "right", "left": "left"}
_BANDS = Resampling(resamples=500, method="percentile")
_RINGS_OF_A_RADIUS = 8
"""Ratio of radius to width of the rings of a profile, which are at least a pixel wide."""
_CURVES = {"across_rows": ("Across rows", "x [px]", 1), "across_columns": ("Across columns", "y [px]", 0)}


def draw_paper(comparison: Comparison) -> Figure:
    """Table 1 of the HCT paper: rows both, right, left; maps, aggregated curves, and both again as square roots."""
    names, count, aggregates = _paper_subsets(comparison), len(comparison.erfs), _Aggregates(comparison)
    height, width = comparison.size
    map_width = max(1.1, 2.4 * width / height)
    widths = ([map_width] * count + [2.5] * 2) * 2
    size = (sum(widths) + 0.4 * len(widths) + 0.4, 2.7 * len(names) + 1.4 + 0.17 * count)
    figure, grid = new_figure(size, len(names), widths)
    top = max(_density(comparison, index, subset).max() for index, subset in product(range(count), names))
    for row, (subset, name) in enumerate(names.items()):
        for rooted in (False, True):
            axes = grid[row, rooted * (count + 2) :]
            for index in range(count):
                _draw_density(axes[index], comparison, index, subset, top, rooted)
                if row == 0:
                    label = f"√ {comparison.labels[index]}" if rooted else comparison.labels[index]
                    axes[index].set_title(label, fontsize=10, color=comparison.colors[index], fontweight="bold")
            for axis, curve in zip(axes[count : count + 2], _CURVES, strict=True):
                aggregates.draw(axis, subset, curve, rooted)
                if row == 0:
                    title = _CURVES[curve][0]
                    axis.set_title(f"√ {title.lower()}" if rooted else title, fontsize=10)
        grid[row, 0].set_ylabel(f"{name}, {comparison.counted(subset)}\n\ny [px]", fontsize=9)
    _share_limits(grid, count)
    grid[0, count].legend(fontsize=7.5, frameon=False, loc="upper right")
    colors = ScalarMappable(Normalize(0, 1e6 * top), "viridis")
    bar = figure.colorbar(colors, ax=list(grid[:, :count].flat), location="bottom", aspect=30, shrink=0.95, pad=0.01)
    bar.set_label("share of the mass [10⁻⁶ per px], one scale for all these maps", fontsize=8)
    blocks = f"Maps over {format_blocks(comparison)}, curves over {comparison.stretch} px."
    foot(figure, comparison, f"{blocks} Bands: 95 % intervals over images. On the right: square roots of both.")
    return figure


def draw_paper_curves(comparison: Comparison) -> Figure:
    """Table A2 of the HCT paper: columns both, right, left; curves across columns, then across rows."""
    names, aggregates = _paper_subsets(comparison), _Aggregates(comparison)
    figure, grid = new_figure((3.6 * len(names) + 0.4, 6.2 + 0.17 * len(comparison.erfs)), 2, [3.6] * len(names))
    for row, curve in enumerate(("across_columns", "across_rows")):
        for column, (subset, name) in enumerate(names.items()):
            axis = grid[row, column]
            aggregates.draw(axis, subset, curve, rooted=False)
            if row == 0:
                axis.set_title(f"{name}, {comparison.counted(subset)}", fontsize=10, fontweight="bold")
            if column == 0:
                axis.set_ylabel(f"{_CURVES[curve][0].lower()}\nshare [‰ per px]", fontsize=9)
        limit = max(axis.get_ylim()[1] for axis in grid[row])
        for axis in grid[row]:
            axis.set_ylim(0, limit)
    grid[0, 0].legend(fontsize=8, frameon=False)
    foot(figure, comparison, "Bands: 95 % bootstrap intervals over images.")
    return figure


def draw_differences(comparison: Comparison) -> Figure:
    """Maps of the share of mass, less that of the first ERF, and of right breasts less left ones."""
    pairs = list(_differences(comparison))
    if not pairs:
        raise InputError("nothing to subtract: expected two or more ERFs, or one with left and right breasts")
    height, width = comparison.size
    map_width = max(1.6, 3.0 * width / height)
    columns = min(len(pairs), len(comparison.subsets) if len(comparison.erfs) > 1 else 4)
    rows = -(-len(pairs) // columns)
    size = (columns * (map_width + 0.7) + 0.4, rows * 3.4 + 1.4)
    figure, grid = new_figure(size, rows, [map_width] * columns)
    limit = max(float(np.abs(values).max()) for _, values, _ in pairs) or 1.0
    norm = TwoSlopeNorm(0, -limit, limit)
    for axis, pair in zip(grid.flat, [*pairs, *[None] * (rows * columns - len(pairs))], strict=True):
        if pair is None:
            axis.set_visible(False)
            continue
        title, values, erf = pair
        axis.imshow(values, cmap="RdBu_r", norm=norm, extent=extent(comparison), interpolation="nearest")
        mark_unit(axis, erf, "black")
        axis.set_title(title, fontsize=9)
        label_map(axis)
    bar = figure.colorbar(
        ScalarMappable(norm, "RdBu_r"), ax=list(grid.flat), location="bottom", aspect=40, shrink=0.9, pad=0.01
    )
    bar.set_label("difference of the shares of mass [10⁻⁶ per px]; red: more in the first named", fontsize=8.5)
    foot(figure, comparison, f"Shares over {format_blocks(comparison)}.")
    return figure


def _differences(comparison: Comparison) -> Iterator[tuple[str, Array, ERF]]:
    named = list(enumerate(zip(comparison.labels, comparison.erfs, strict=True)))
    for index, (label, erf) in named[1:]:
        for subset in comparison.subsets:
            values = _density(comparison, index, subset) - _density(comparison, 0, subset)
            yield f"{label} − {comparison.labels[0]}\n{subset}", 1e6 * values, erf
    if {"left", "right"} <= set(comparison.subsets):
        for index, (label, erf) in named:
            values = _density(comparison, index, "right") - _density(comparison, index, "left")
            yield f"{label}\nright − left", 1e6 * values, erf


def draw_radial(comparison: Comparison) -> Figure:
    """Mass against the distance from the unit's centre: within a radius, and per pixel at it."""
    subsets = comparison.subsets
    size = (3.8 * len(subsets) + 0.4, 6.4 + 0.17 * len(comparison.erfs))
    figure, grid = new_figure(size, 2, [3.8] * len(subsets))
    for column, subset in enumerate(subsets):
        for index, (label, color) in enumerate(zip(comparison.labels, comparison.colors, strict=True)):
            _draw_profile(grid[:, column], comparison.observed(index, subset), label, color)
        grid[0, column].set_title(f"{subset}, {comparison.counted(subset)}", fontsize=10, fontweight="bold")
        grid[1, column].set_xlabel("distance from the unit's centre [px]", fontsize=9)
    for axis in grid[0]:
        axis.set_ylim(0, 102)
    for axis in grid.flat:
        axis.set_xlim(left=0)
        axis.grid(alpha=0.25, lw=0.5)
        axis.tick_params(labelsize=8)
    grid[0, 0].set_ylabel("mass within [%]", fontsize=9)
    grid[1, 0].set_ylabel("density, relative to the centre's", fontsize=9)
    grid[0, 0].legend(fontsize=8, frameon=False, loc="lower right")
    foot(figure, comparison, "Dots: half of the mass, and 90 %. Density over rings an eighth as wide as their radius.")
    return figure


def _draw_profile(axes: Any, seen: Observations, label: str, color: str) -> None:
    edges, mass, area = np.concatenate([[0], seen.ring_edges]), seen.all().ring_masses, seen.ring_areas
    with np.errstate(invalid="ignore"):  # a field without mass has no profile
        held = np.concatenate([[0], np.cumsum(mass)]) / mass.sum()
    axes[0].plot(edges, 100 * held, color=color, lw=1.3, label=label)
    for share in (0.5, 0.9):
        axes[0].plot(np.interp(share, held, edges), 100 * share, "o", color=color, markersize=4)
    edges, mass, area = _widened(edges, mass, area)
    near = edges[1:] <= 2 * (seen.radius_of_center or seen.grid.block)
    near[0] = True
    with np.errstate(invalid="ignore", divide="ignore"):  # rings outside the image, a centre that holds nothing
        density = np.where(area > 0, mass / area, np.nan) / (mass[near].sum() / area[near].sum())
    axes[1].plot((edges[:-1] + edges[1:]) / 2, density, color=color, lw=1.1)
    axes[1].set_yscale("log")
    axes[1].set_ylim(1e-6, 2)


def _widened(edges: Array, *sums: Array) -> tuple[Array, ...]:
    """Rings joined until they are as wide as a profile shows them: edges, and sums over them."""
    chosen = [0]
    while edges[chosen[-1]] < edges[-1]:
        inner = edges[chosen[-1]]
        chosen.append(min(int(np.searchsorted(edges, inner + max(1.0, inner / _RINGS_OF_A_RADIUS))), len(edges) - 1))
    return edges[chosen], *(np.add.reduceat(values, chosen[:-1]) for values in sums)


LAYOUTS: dict[str, Callable[[Comparison], Figure]] = {
    "overview": draw_figure,
    "paper": draw_paper,
    "paper-curves": draw_paper_curves,
    "differences": draw_differences,
    "contours": draw_contours,
    "radial": draw_radial,
    "growth": draw_growth,
    "convergence": draw_convergence,
    "ranks": draw_ranks,
}
"""Arrangements of a static picture, by name."""


def _paper_subsets(comparison: Comparison) -> dict[str, str]:
    names = {subset: name for subset, name in _PAPER_ORDER.items() if subset in comparison.subsets}
    if comparison.signed:
        raise InputError("the paper's arrangement takes square roots", remedy="use `definition` abs, relu or square")
    return names or dict.fromkeys(comparison.subsets, "")


def _density(comparison: Comparison, index: int, subset: str) -> Array:
    """Share of the mass per pixel over blocks (h, w)."""
    seen = comparison.observed(index, subset)
    small = seen.grid.evened(seen.all().small)
    return np.asarray(small / small.sum() / seen.grid.even.areas)


def _draw_density(axis: Axes, comparison: Comparison, index: int, subset: str, top: float, rooted: bool) -> None:
    density = _density(comparison, index, subset)
    shown, limit = (np.sqrt(density), np.sqrt(top)) if rooted else (density, top)
    axis.imshow(shown, cmap="viridis", vmin=0, vmax=limit, extent=extent(comparison), interpolation="nearest")
    axis.tick_params(labelsize=7.5)


@dataclass(frozen=True, eq=False)
class _Aggregates:
    """Curves of a comparison with their bands, each computed once."""

    comparison: Comparison

    @cache  # noqa: B019 (lives as long as a picture is drawn)
    def lines(self, index: int, subset: str, curve: str) -> list[tuple[Array, Array]]:
        """Positions and smoothed shares, in thousandths: the curve, its lower and its upper band."""
        seen = self.comparison.observed(index, subset)
        values = getattr(seen.all(), curve)
        positions, middle = smooth(values / values.sum(), self.comparison.stretch)
        low, high = bands(seen, _BANDS, curve, self.comparison.stretch)
        return [(positions, 1000 * means) for means in (middle, low, high)]

    def draw(self, axis: Axes, subset: str, curve: str, rooted: bool) -> None:
        """All ERFs of a subset on one axis."""
        comparison, (_, label, along) = self.comparison, _CURVES[curve]
        for index, (name, color) in enumerate(zip(comparison.labels, comparison.colors, strict=True)):
            lines = self.lines(index, subset, curve)
            middle, below, above = (square_root(means) if rooted else means for _, means in lines)
            axis.fill_between(lines[0][0], below, above, color=color, alpha=0.25, lw=0)
            axis.plot(lines[0][0], middle, color=color, lw=1.2, label=name)
            axis.axvline(comparison.erfs[index].provenance.unit_center[along], color="0.4", lw=0.7, ls=":")
        axis.set_xlim(-0.5, comparison.size[along] - 0.5)
        axis.set_ylim(bottom=0)
        axis.set_xlabel(label, fontsize=8.5)
        axis.tick_params(labelsize=7.5)
        axis.grid(alpha=0.25, lw=0.5)


def _share_limits(grid: Any, count: int) -> None:
    """Set a common scale for the curves of a column."""
    for column in (count, count + 1, 2 * count + 2, 2 * count + 3):
        limit = max(axis.get_ylim()[1] for axis in grid[:, column])
        for axis in grid[:, column]:
            axis.set_ylim(0, limit)
