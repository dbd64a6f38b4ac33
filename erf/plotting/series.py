"""Pictures of the receptive field over training, from a series alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from numpy.typing import NDArray

from erf.errors import InputError
from erf.measures import MEASURES, smooth, stretch_length
from erf.plotting.coloring import LOG_DECADES
from erf.plotting.figure import draw_intervals
from erf.plotting.saving import PICTURES, Figure, literal, save_figure
from erf.storage.files import check_free, complete_file
from erf.storage.series import Moment, Series
from erf.uncertainty import Resampling, estimate

_SHOWN = 6
"""Largest number of epochs shown with a map."""
_DRAWING = Resampling(resamples=500)
_RADII = {"rms_radius": ("rms radius", "#2ca02c"), "r50": ("r50", "#1f77b4"), "r90": ("r90", "#ff7f0e")}
_SIDES = {"left": "#1f77b4", "right": "#d62728"}


def plot_series(
    series: Series,
    path: str | Path | None = None,
    *,
    definition: str = "abs",
    subsets: Sequence[str] = (),
    overwrite: bool = False,
) -> Any:
    """Draw maps of some epochs per subset, curves of all epochs, and measures with their intervals over epochs.

    Args:
        series: ERFs over a training.
        path: PNG, SVG or PDF file; None to return the figure.
        definition: definition of the maps.
        subsets: names of the subsets; default: all images, left and right, as far as there are any.
        overwrite: whether an existing file may be replaced.

    Returns:
        The path, or a figure of matplotlib, which shows itself in a notebook.

    Raises:
        InputError: a subset or definition is not in the series, or the suffix of the path is not known.
        OutputError: the path cannot be written.
    """
    names = tuple(subsets) or tuple(name for name in ("all", "left", "right") if name in series.subsets)
    if path is None:
        return literal(_figure(series, definition, names))
    path = Path(path)
    if path.suffix.lower() not in PICTURES:
        raise InputError(f"{path}: suffix '{path.suffix}' not known; expected one of {', '.join(PICTURES)}")
    check_free(path, overwrite)
    figure = _figure(series, definition, names)
    with complete_file(path) as part:
        save_figure(figure, part)
    return path


def _figure(series: Series, definition: str, subsets: tuple[str, ...]) -> Figure:
    shown = _chosen(series.moments)
    height, width = series.moments[0].provenance.input_shape[1:]
    map_width = max(1.0, 2.5 * width / height)
    curve_width = 3.0
    widths = [map_width] * len(shown) + [curve_width] * 2
    size = (sum(widths) + 0.3 * len(widths) + 1.2, 2.6 * len(subsets) + 4.1)
    figure = Figure(size)
    halves: Any = figure.subfigures(2, 1, height_ratios=[2.6 * len(subsets) + 0.7, 3.2])
    upper, lower = halves
    grid = upper.subplots(len(subsets), len(widths), squeeze=False, width_ratios=widths)
    for row, subset in enumerate(subsets):
        for column, moment in enumerate(shown):
            _draw_map(grid[row, column], series, moment, subset, definition)
            grid[row, column].set_title(_words(moment) if row == 0 else "", fontsize=9)
            grid[row, column].tick_params(labelleft=column == 0, labelbottom=row == len(subsets) - 1)
        grid[row, 0].set_ylabel(f"{subset}, N = {_count(series, subset)}\n\ny [px]", fontsize=9)
        _draw_curves(grid[row, -2], series, subset, definition, "across_rows")
        _draw_curves(grid[row, -1], series, subset, definition, "across_columns")
    for axis in grid[-1, :-2]:
        axis.set_xlabel("x [px]", fontsize=8.5)
    grid[0, -2].set_title("√ of the sum across rows", fontsize=9)
    grid[0, -1].set_title("√ of the sum across columns", fontsize=9)
    grid[-1, -2].set_xlabel("x [px]", fontsize=8.5)
    grid[-1, -1].set_xlabel("y [px]", fontsize=8.5)
    bar = upper.colorbar(
        ScalarMappable(Normalize(-LOG_DECADES, 0), "viridis"), ax=list(grid[:, : len(shown)].flat),
        location="bottom", aspect=50, shrink=0.8, pad=0.01,
    )  # fmt: skip
    bar.set_label("share of the map's maximum, powers of ten", fontsize=8)
    bar.ax.tick_params(labelsize=7.5)
    epochs = [moment.epoch for moment in series.moments]
    scale = ScalarMappable(Normalize(min(epochs), max(*epochs, 1)), "plasma")
    upper.colorbar(scale, ax=list(grid[:, -2:].flat), location="bottom", aspect=40, shrink=0.8, pad=0.01).set_label(
        "epoch", fontsize=8
    )
    _draw_measures(lower, series, definition)
    first = series.moments[0].provenance
    figure.supxlabel(
        f"{first.title}, {first.target}. Definition '{definition}', the same {len(series.images)} images at every "
        f"epoch. Maps over blocks of {first.small_block} px; cross: the unit's centre. Bands: 95 % intervals over "
        "images or patients.",
        fontsize=8.5, x=0.01, ha="left",
    )  # fmt: skip
    return figure


def _chosen(moments: Sequence[Moment]) -> list[Moment]:
    """Choose the first epoch, the last, and some between."""
    places = np.unique(np.linspace(0, len(moments) - 1, min(_SHOWN, len(moments))).round().astype(int))
    return [moments[place] for place in places]


def _words(moment: Moment) -> str:
    return f"epoch {moment.epoch}" + (f"\n{moment.stage}" if moment.stage else "")


def _count(series: Series, subset: str) -> int:
    return sum(image.status == "ok" and subset in image.subsets for image in series.images)


def _draw_map(axis: Axes, series: Series, moment: Moment, subset: str, definition: str) -> None:
    mean = moment.provenance.grid.evened(series.observe(moment, subset, definition).small.mean(0))
    origin = moment.provenance
    height, width = origin.input_shape[1:]
    share = mean / max(float(mean.max()), 1e-300)
    with np.errstate(divide="ignore"):
        values = np.clip(np.log10(share) / LOG_DECADES + 1, 0, 1)
    block = origin.small_block
    edges = (-0.5, values.shape[1] * block - 0.5, values.shape[0] * block - 0.5, -0.5)
    axis.imshow(values, cmap="viridis", vmin=0, vmax=1, extent=edges, interpolation="nearest")
    axis.plot(origin.unit_center[1], origin.unit_center[0], "+", color="white", markersize=8, mew=1)
    axis.set_xlim(-0.5, width - 0.5)
    axis.set_ylim(height - 0.5, -0.5)
    axis.tick_params(labelsize=7)


def _draw_curves(axis: Axes, series: Series, subset: str, definition: str, name: str) -> None:
    """Draw a curve for each epoch, from dark to bright."""
    epochs = [moment.epoch for moment in series.moments]
    shades = ScalarMappable(Normalize(min(epochs), max(*epochs, 1)), "plasma")
    for moment in series.moments:
        curve: NDArray[Any] = getattr(series.observe(moment, subset, definition), name).mean(0)
        share = 1000 * curve / max(float(curve.sum()), 1e-300)
        places, means = smooth(share, stretch_length(max(moment.provenance.input_shape[1:])))
        axis.plot(places, np.sqrt(means), color=shades.to_rgba(np.asarray(moment.epoch)), lw=1.0)
    center = series.moments[0].provenance.unit_center[1 if name == "across_rows" else 0]
    axis.axvline(center, color="#888888", lw=0.8, ls=":")
    axis.set_ylim(bottom=0)
    axis.set_ylabel("√ share [√‰ per px]", fontsize=8)
    axis.tick_params(labelsize=7.5)


def _draw_measures(figure: Any, series: Series, definition: str) -> None:
    has_sides = {"left", "right"} <= set(series.subsets)
    scores = {name for moment in series.moments for name in moment.scores} & {"validation_auc", "validation_mean_iou"}
    axes = figure.subplots(1, 1 + has_sides + bool(scores), squeeze=False)[0]
    epochs = [moment.epoch for moment in series.moments]
    found = [
        estimate(series.observe(moment, "all", definition), [MEASURES[name] for name in _RADII], _DRAWING)
        for moment in series.moments
    ]
    for name, (label, color) in _RADII.items():
        draw_intervals(axes[0], epochs, [one[name] for one in found], color, label)
    axes[0].set_title("how wide: radii [px], all images", fontsize=9)
    axes[0].set_ylim(bottom=0)
    if has_sides:
        for side, color in _SIDES.items():
            shifts = [
                estimate(series.observe(moment, side, definition), [MEASURES["shift_x"]], _DRAWING)["shift_x"]
                for moment in series.moments
            ]
            draw_intervals(axes[1], epochs, shifts, color, f"{side} breasts")
        axes[1].axhline(0, color="#888888", lw=0.8, ls=":")
        axes[1].set_title("where: centroid less the unit's centre, x [px]", fontsize=9)
    for name in sorted(scores):
        points = [(moment.epoch, moment.scores[name]) for moment in series.moments if name in moment.scores]
        label = "AUC" if name == "validation_auc" else "mean IoU"
        axes[-1].plot(*zip(*points, strict=True), "o-", lw=1.2, markersize=4, label=label)
        axes[-1].set_title("how well, on validation images", fontsize=9)
        axes[-1].set_ylim(0, 1.02)
    for axis in axes:
        axis.set_xlabel("epoch", fontsize=8.5)
        axis.set_xticks(epochs if len(epochs) <= 12 else epochs[:: len(epochs) // 8])
        axis.tick_params(labelsize=7.5)
        axis.grid(alpha=0.25, lw=0.5)
        axis.legend(fontsize=8, frameon=False)
