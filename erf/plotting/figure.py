"""Static pictures: PNG, SVG, PDF, through matplotlib."""

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle
from numpy.typing import ArrayLike

from erf.measures import smooth
from erf.plotting.coloring import LOG_DECADES
from erf.plotting.panels import Comparison, caption, square_root
from erf.plotting.saving import Figure
from erf.results import ERF
from erf.uncertainty import Interval

_ROW_HEIGHT = 2.9
_CURVE_WIDTH = 2.7
_WIDEST = 10.0
"""Largest width of a map in inches; the single row of a signal is drawn higher than to scale."""
_TITLE_LETTERS = 24
_LETTERS_OF_AN_INCH = 16
"""Of a caption of 8 points."""
_CURVES = (("across_rows", False), ("across_columns", False), ("across_rows", True), ("across_columns", True))


def draw_figure(comparison: Comparison) -> Figure:
    """One row per subset: the map of each ERF, the curves across rows and columns, and their square roots."""
    height, width = comparison.size
    widths = [min(max(1.2, 2.6 * width / height), _WIDEST)] * len(comparison.erfs) + [_CURVE_WIDTH] * len(_CURVES)
    rows = len(comparison.subsets)
    size = (sum(widths) + 0.45 * len(widths) + 0.4, rows * _ROW_HEIGHT + 1.1 + 0.17 * len(comparison.erfs))
    figure = Figure(size)
    grid = figure.subplots(rows, len(widths), squeeze=False, width_ratios=widths, sharex="col")
    for row, subset in enumerate(comparison.subsets):
        _draw_row(comparison, subset, list(grid[row]))
    _title_columns(comparison, list(grid[0]))
    _label_bottom(comparison, list(grid[-1]))
    _add_color_bar(figure, comparison, grid[:, : len(comparison.erfs)])
    figure.supxlabel(caption(comparison), fontsize=8.5, x=0.01, ha="left")
    return figure


def _draw_row(comparison: Comparison, subset: str, axes: list[Axes]) -> None:
    count = len(comparison.erfs)
    for index in range(count):
        _draw_map(axes[index], comparison, index, subset)
        if index:
            axes[index].tick_params(labelleft=False)
    axes[0].set_ylabel("y [px]", fontsize=9)
    axes[0].annotate(
        f"{subset}\n{comparison.counted(subset)}",
        (0, 0.5),
        (-62, 0),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="center",
        va="center",
        rotation=90,
        fontsize=10,
        fontweight="bold",
    )
    for axis, (name, rooted) in zip(axes[count:], _CURVES, strict=True):
        _draw_curves(axis, comparison, subset, name, rooted)


def _draw_map(axis: Axes, comparison: Comparison, index: int, subset: str) -> None:
    height, width = comparison.size
    axis.imshow(
        comparison.shown(index, subset),
        cmap=comparison.coloring.color_map(comparison.signed),
        vmin=-1 if comparison.signed else 0,
        vmax=1,
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        interpolation="nearest",
        aspect="equal" if 2.6 * width / height < _WIDEST else "auto",
    )
    mark_unit(axis, comparison.erfs[index], comparison.coloring.mark(comparison.signed))
    axis.tick_params(labelsize=8)


def mark_unit(axis: Axes, erf: ERF, color: str) -> None:
    """The unit's projected centre, and the box of its theoretical receptive field where it is finite."""
    y, x = erf.provenance.unit_center
    limits = axis.axis()  # a field may be larger than the image
    axis.plot(x, y, "+", color=color, markersize=6, markeredgewidth=0.8)
    box = erf.provenance.field_box()
    if box is not None:
        height, width = box.shape
        axis.add_patch(Rectangle((box.left, box.top), width, height, fill=False, ls="--", lw=0.8, ec=color))
    axis.axis(limits)


def draw_intervals(
    axis: Axes, places: ArrayLike, intervals: Sequence[Interval], color: str, label: str, factor: float = 1.0
) -> None:
    """Draw values as a line with points, and their intervals as a band, all multiplied by a factor."""
    value, low, high = (
        factor * np.array([getattr(interval, edge) for interval in intervals]) for edge in ("value", "low", "high")
    )
    axis.fill_between(places, low, high, color=color, alpha=0.22, lw=0)
    axis.plot(places, value, "o-", color=color, lw=1.2, markersize=3.5, label=label)


def _draw_curves(axis: Axes, comparison: Comparison, subset: str, name: str, rooted: bool) -> None:
    along = 1 if name == "across_rows" else 0
    for index, (label, color) in enumerate(zip(comparison.labels, comparison.colors, strict=True)):
        curve = getattr(comparison.panels[index, subset], name)
        positions, means = smooth(curve, comparison.stretch)
        axis.plot(square_root(curve) if rooted else curve, color=color, lw=0.4, alpha=0.22, rasterized=True)
        axis.plot(positions, square_root(means) if rooted else means, color=color, lw=1.3, label=label)
        _mark_field(axis, comparison.erfs[index], along, color)
    axis.set_xlim(-0.5, comparison.size[along] - 0.5)
    if not comparison.signed:
        axis.set_ylim(bottom=0)
    axis.set_ylabel("√ share [√‰ per px]" if rooted else "share [‰ per px]", fontsize=8.5)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25, lw=0.5)


def _mark_field(axis: Axes, erf: ERF, along: int, color: str) -> None:
    """Dashed lines at the edges of a finite theoretical receptive field, a dotted one at the unit's centre."""
    axis.axvline(erf.provenance.unit_center[along], color="0.4", lw=0.8, ls=":")
    box = erf.provenance.field_box()
    if box is not None:
        for edge in box.axes[along]:
            axis.axvline(edge, color=color, lw=0.9, ls="--", alpha=0.8)


def _title_columns(comparison: Comparison, axes: list[Axes]) -> None:
    for axis, label, color in zip(axes, comparison.labels, comparison.colors, strict=False):
        axis.set_title(fill(label, _TITLE_LETTERS), fontsize=11, color=color, fontweight="bold")
    for axis, (name, rooted) in zip(axes[len(comparison.erfs) :], _CURVES, strict=True):
        words = name.replace("_", " ")
        axis.set_title(f"√ of the sum {words}" if rooted else f"Sum {words}", fontsize=10)
    axes[len(comparison.erfs)].legend(fontsize=8, frameon=False, loc="upper right")


def _label_bottom(comparison: Comparison, axes: list[Axes]) -> None:
    for axis in axes[: len(comparison.erfs)]:
        axis.set_xlabel("x [px]", fontsize=9)
    for axis, (name, _) in zip(axes[len(comparison.erfs) :], _CURVES, strict=True):
        axis.set_xlabel("x [px]" if name == "across_rows" else "y [px]", fontsize=9)


def _add_color_bar(figure: Figure, comparison: Comparison, axes: np.ndarray) -> None:
    low = -1 if comparison.signed else 0
    colors = ScalarMappable(Normalize(low, 1), comparison.coloring.color_map(comparison.signed))
    bar = figure.colorbar(colors, ax=list(axes.flat), location="bottom", aspect=40, shrink=0.9, pad=0.01)
    bar.set_label(comparison.coloring.describe(), fontsize=8.5)
    bar.ax.tick_params(labelsize=8)
    if comparison.coloring.scale == "log" and comparison.coloring.clip is None:
        ticks, names = _decade_ticks(comparison, every=1 if len(comparison.erfs) > 1 and not comparison.signed else 2)
        bar.set_ticks(ticks, labels=names)


def _decade_ticks(comparison: Comparison, every: int) -> tuple[list[float], list[str]]:
    """Set ticks of the log scale: the middle of a signed map, and the bottom of any other, means nearly 0."""
    powers = range(-LOG_DECADES, 1, every)
    ticks = [1 + power / LOG_DECADES for power in powers]
    names = [f"≤$10^{{{powers[0]}}}$", *(f"$10^{{{power}}}$" for power in powers[1:-1]), "1"]
    if comparison.signed:
        ticks = [-tick for tick in ticks[:0:-1]] + ticks
        names = [f"−{name}" for name in names[:0:-1]] + ["0", *names[1:]]
    return ticks, names


def new_figure(size: tuple[float, float], rows: int, widths: list[float]) -> tuple[Figure, Any]:
    """A figure of (width, height) in inches, and its axes (rows, columns)."""
    figure = Figure(size)
    return figure, figure.subplots(rows, len(widths), squeeze=False, width_ratios=widths)


def label_map(axis: Axes) -> None:
    """Label the axes of a map."""
    axis.set_xlabel("x [px]", fontsize=8.5)
    axis.set_ylabel("y [px]", fontsize=8.5)
    axis.tick_params(labelsize=8)


def extent(comparison: Comparison) -> tuple[float, float, float, float]:
    """Edges of a map (left, right, bottom, top) in pixels."""
    height, width = comparison.size
    return -0.5, width - 0.5, height - 0.5, -0.5


def format_blocks(comparison: Comparison) -> str:
    """The blocks over which maps are drawn, in words."""
    return f"blocks of {comparison.erfs[0].provenance.small_block} px"


def foot(figure: Figure, comparison: Comparison, more: str = "") -> None:
    """Write the measured quantity and further remarks below a figure."""
    first, *rest = caption(comparison).split("\n")
    words = first.split(" Curves are")[0]
    width = max(60, int(_LETTERS_OF_AN_INCH * figure.get_figwidth()))
    lines = [fill(line, width) for line in (f"{words} {more}".strip(), *rest)]
    figure.supxlabel("\n".join(lines), fontsize=8, x=0.01, ha="left")
