"""Contours that enclose shares of the mass, over the mean image."""

import numpy as np
from matplotlib.lines import Line2D
from scipy.ndimage import gaussian_filter

from erf.errors import InputError
from erf.measures import BLOCKS_OF_A_FIELD, Observations
from erf.plotting.figure import extent, foot, format_blocks, label_map, new_figure
from erf.plotting.panels import Comparison
from erf.plotting.saving import Figure
from erf.results import ERF
from erf.results.grid import Array, Grid

_SMOOTHING = 2.0
_LARGEST_BLUR = 0.1
"""Largest standard deviation of the smoothing, as a share of the extent of half the mass: areas grow by 2 %."""

_NAME_WIDTH = 2.0
"""Width in inches of a name in the legend."""

_STYLES = ("-", "--", ":", "-.")
"""Lines of the shares, in rising order."""


def draw_contours(comparison: Comparison) -> Figure:
    """Contours that enclose shares of the mass, over the mean image of each subset."""
    if len(comparison.shares) > len(_STYLES):
        raise InputError(f"{len(comparison.shares)} contours; expected at most {len(_STYLES)}")
    height, width = comparison.size
    map_width = max(1.6, 3.2 * width / height)
    subsets = comparison.subsets
    size = (max(8.0, len(subsets) * (map_width + 0.7) + 0.4), 3.9 + 0.5 + 0.17 * len(comparison.erfs))
    figure, grid = new_figure(size, 1, [map_width] * len(subsets))
    for axis, subset in zip(grid[0], subsets, strict=True):
        axis.imshow(_mean_image(comparison.erfs[0], subset), cmap="gray", vmin=0, vmax=255, extent=extent(comparison))
        for index, (erf, color) in enumerate(zip(comparison.erfs, comparison.colors, strict=True)):
            grid, density = _contoured(comparison.observed(index, subset))
            y, x = grid.middles
            levels = enclosing_levels(density * grid.areas, density, comparison.shares)
            for level, style in zip(levels, _STYLES, strict=False):
                axis.contour(x, y, density, [level], colors=[color], linewidths=1.1, linestyles=style)
            axis.plot(*erf.provenance.unit_center[::-1], "+", color=color, markersize=6, markeredgewidth=0.8)
        axis.set_title(f"{subset}, {comparison.counted(subset)}", fontsize=10, fontweight="bold")
        axis.set_xlim(-0.5, width - 0.5)
        axis.set_ylim(height - 0.5, -0.5)
        label_map(axis)
    handles = [
        *(_line(color, "-", label) for label, color in zip(comparison.labels, comparison.colors, strict=True)),
        *(
            _line("0.5", style, f"{100 * share:g} % of the mass")
            for share, style in zip(comparison.shares, _STYLES, strict=False)
        ),
    ]
    figure.legend(
        handles=handles,
        loc="outside upper center",
        ncols=min(len(handles), int(size[0] / _NAME_WIDTH)),
        fontsize=8,
        frameon=False,
    )
    behind = "" if comparison.erfs[0].provenance.imported else "Behind: the mean of the images. "
    foot(
        figure,
        comparison,
        f"{behind}Contours of the density in {format_blocks(comparison)}, smoothed over "
        f"{_SMOOTHING:g} or less; of a field narrower than {BLOCKS_OF_A_FIELD}, in the file's finer blocks.",
    )
    return figure


def _contoured(seen: Observations) -> tuple[Grid, Array]:
    """Return the mass density, smoothed in squares, or in the file's blocks if squares do not resolve the field."""
    if seen.extent < BLOCKS_OF_A_FIELD * seen.grid.block:
        return seen.grid, seen.all().small / seen.grid.areas
    even = seen.grid.even
    sigma = min(_SMOOTHING, _LARGEST_BLUR * seen.extent / seen.grid.block)
    return even, gaussian_filter(seen.grid.evened(seen.all().small) / even.areas, sigma)


def enclosing_levels(mass: Array, density: Array, shares: tuple[float, ...]) -> list[float]:
    """Densities above which shares of the mass lie."""
    order = np.argsort(density.ravel())[::-1]
    held = np.cumsum(mass.ravel()[order]) / mass.sum()
    return [float(density.ravel()[order][np.searchsorted(held, share)]) for share in shares]


def _line(color: str, style: str, label: str) -> Line2D:
    return Line2D([], [], color=color, ls=style, label=label)


def _mean_image(erf: ERF, subset: str) -> Array:
    overview = erf.overview()
    if erf.provenance.imported:
        return np.full(erf.provenance.grid.even.shape, 255.0)
    if overview is None or not overview.thumbnail.any():
        raise InputError(f"{erf.provenance.title}: the file keeps no thumbnails; compute it again for contours")
    rows = [index for index, image in enumerate(erf.images) if image.status == "ok" and subset in image.subsets]
    return np.asarray(overview.thumbnail[rows].mean(0), np.float64)
