"""Ranks of networks against a factor of the gradient: which number is a property of the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes

from erf.errors import InputError
from erf.measures.size import mass_radius, replknet_area_ratio
from erf.plotting.figure import new_figure
from erf.plotting.panels import Comparison
from erf.plotting.saving import Figure
from erf.results.grid import Array

FACTORS = 10.0 ** np.arange(9)
"""Factors of the gradient, 1 to 10⁸."""

_FAR = 6
"""Place of the factor 10⁶, with which the order at 1 is compared."""

_SHARE = 0.2


@dataclass(frozen=True)
class Ranking:
    """Values of one number for N networks at F factors of the gradient."""

    values: Array
    """(N, F); larger for a larger field, NaN where there is none."""

    @property
    def ranks(self) -> Array:
        """(N, F), 1 for the largest field; equal values share the mean of their ranks, and what is NaN comes last."""
        from scipy.stats import rankdata  # takes two seconds to import, and other pictures need none

        return np.asarray(rankdata(np.nan_to_num(-self.values, nan=np.inf), axis=0))

    @property
    def tau(self) -> float:
        """Kendall's τ-b between the orders at the factors 1 and 10⁶."""
        from scipy.stats import kendalltau

        return float(kendalltau(self.ranks[:, 0], self.ranks[:, _FAR]).statistic)

    @property
    def swapped(self) -> int:
        """Number of pairs of networks whose order is the opposite at 10⁶."""
        return sum(
            (self.ranks[one, 0] - self.ranks[two, 0]) * (self.ranks[one, _FAR] - self.ranks[two, _FAR]) < 0
            for one, two in combinations(range(len(self.values)), 2)
        )


def area_ratios(comparison: Comparison, subset: str) -> Ranking:
    """RepLKNet's area ratio at 20 % of each network, of its map multiplied by each factor."""
    means = [erf.statistics(subset, comparison.definition).mean.astype(np.float64) for erf in comparison.erfs]
    return Ranking(np.array([[replknet_area_ratio(factor * mean, _SHARE) for factor in FACTORS] for mean in means]))


def radii(comparison: Comparison, subset: str) -> Ranking:
    """Radius with half of the mass, over the root of the image's area, of each map multiplied by each factor."""
    rows = []
    for index in range(len(comparison.erfs)):
        seen = comparison.observed(index, subset)
        side, masses = np.sqrt(seen.grid.size[0] * seen.grid.size[1]), seen.all().ring_masses
        rows.append([float(mass_radius(factor * masses, seen.ring_edges, 0.5)) / side for factor in FACTORS])
    return Ranking(np.array(rows).round(12))  # so that products in another order are no other rank


def draw_ranks(comparison: Comparison) -> Figure:
    """Rank of each network against the factor of the gradient, for RepLKNet's area ratio and for r50."""
    if len(comparison.erfs) < 2:
        raise InputError("nothing to rank: expected two or more ERFs")
    subset, count = comparison.subsets[0], len(comparison.erfs)
    found = {"RepLKNet's area ratio at 20 %": area_ratios(comparison, subset), "r50": radii(comparison, subset)}
    figure, grid = new_figure((13.5, max(3.2, 0.3 * count + 1.2) + 0.6), 1, [1.0, 1.0])
    for axis, (name, ranking), is_right in zip(grid[0], found.items(), (False, True), strict=True):
        _draw(axis, ranking.ranks, comparison.labels, is_right)
        axis.set_title(f"{name}: τ = {ranking.tau:.2f}", fontsize=11, fontweight="bold")
    ratios, sizes = found.values()
    pairs = count * (count - 1) // 2
    figure.supxlabel(
        f"Rank of {count} networks if every gradient is multiplied by a number (1: as in the files), which changes "
        f"nothing about a network; definition '{comparison.definition}', subset {subset}. Top: the largest field; "
        f"equal values share a rank.\nKendall's τ between the orders at 1 and 10⁶: {ratios.tau:.2f} for the area "
        f"ratio, where {ratios.swapped} of {pairs} pairs change their order, and {sizes.tau:.2f} for r50, where "
        f"{sizes.swapped} do.\nr50, relative to the side of the image, is a property of the network; the area ratio, "
        "which takes the logarithm of 1 + map, also depends on the unit of the gradient.",
        fontsize=8.5,
        x=0.01,
        ha="left",
    )
    return figure


def _draw(axis: Axes, ranks: Array, labels: Sequence[str], is_right: bool) -> None:
    colors = colormaps["tab20"].colors  # type: ignore[attr-defined]
    column, end, side = (-1, 1.06, "left") if is_right else (0, -0.06, "right")
    places = ranks[:, column].argsort(kind="stable").argsort() + 1  # of names, one below the other also where equal
    for number, (row, label, place) in enumerate(zip(ranks, labels, places, strict=True)):
        color = colors[number % len(colors)]
        axis.plot(FACTORS, row, "o-", color=color, lw=1.8, markersize=4)
        axis.annotate(
            label, (FACTORS[column], row[column]), (end, place), textcoords=("axes fraction", "data"),
            va="center", ha=side, fontsize=8, color=np.multiply(color, 0.75), annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "lw": 0.8},
        )  # fmt: skip
    axis.set_xscale("log")
    axis.set_ylim(len(ranks) + 0.6, 0.4)
    axis.set_yticks([])
    axis.set_xticks(FACTORS)
    axis.set_xlabel("factor of the gradient", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(axis="x", alpha=0.25, lw=0.5)
