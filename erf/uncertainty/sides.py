"""Permutation test of left against right: sides are permuted under the hypothesis that they do not matter.

The exchangeable unit is a breast: the images of one side of a patient, which are alike. The sides of a patient with
both are kept or swapped; patients with one side are permuted as a whole (Good. Permutation, parametric and bootstrap
tests of hypotheses. 2005, chapter 3: exact if the permuted units are exchangeable).
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from erf.errors import InputError
from erf.measures import SIDE_MEASURES, Measure, Observations, Sample
from erf.results.grid import Array
from erf.uncertainty.resampling import Resampling

_BATCH = 32
"""Permutations at a time; more no longer fit into a cache."""
_TIE = 1e-9


@dataclass(frozen=True)
class SidePermutations:
    """Permutations of the sides among the images of an ERF."""

    observed: Observations

    @cached_property
    def _sides_of_groups(self) -> NDArray[np.bool_]:
        """(2, G), whether a group has left and right images."""
        groups = self.observed.grouping
        found = np.zeros((2, int(groups.max()) + 1), bool)
        for row, side in enumerate(("left", "right")):
            found[row, groups[self.observed.sides == side]] = True
        return found

    @cached_property
    def with_both(self) -> NDArray[np.intp]:
        """Groups whose sides are kept or swapped."""
        return np.flatnonzero(self._sides_of_groups.all(0))

    @cached_property
    def with_one(self) -> NDArray[np.intp]:
        """Groups with one side, which are permuted."""
        return np.flatnonzero(self._sides_of_groups[0] != self._sides_of_groups[1])

    @cached_property
    def lefts(self) -> int:
        """Number of left groups among those with one side."""
        return int(self._sides_of_groups[0, self.with_one].sum())

    def __len__(self) -> int:
        return 2 ** len(self.with_both) * math.comb(len(self.with_one), self.lefts)

    @property
    def least_p(self) -> float:
        """Smallest possible p value; swapping all sides gives a permutation as extreme as the original."""
        has_mirror = 2 * self.lefts == len(self.with_one)
        return (1 + has_mirror) / len(self)

    def all(self) -> Iterator[NDArray[np.bool_]]:
        """Yield every permutation, as a mask (G,) of groups whose sides change."""
        for swapped in itertools.product((False, True), repeat=len(self.with_both)):
            for chosen in itertools.combinations(self.with_one, self.lefts):
                yield self._changed(np.array(swapped, bool), np.array(chosen, np.intp))

    def some(self, count: int, rng: np.random.Generator) -> Iterator[NDArray[np.bool_]]:
        """Yield `count` random permutations, as in `all`."""
        for _ in range(count):
            chosen = rng.permutation(self.with_one)[: self.lefts]
            yield self._changed(rng.random(len(self.with_both)) < 0.5, chosen)

    def _changed(self, swapped: NDArray[np.bool_], left: NDArray[np.intp]) -> NDArray[np.bool_]:
        changed = np.zeros(self._sides_of_groups.shape[1], bool)
        changed[self.with_both] = swapped
        changed[left] = True
        changed[self.with_one] ^= self._sides_of_groups[0, self.with_one]
        return changed


def left_right_tests(
    observed: Observations, measures: Sequence[Measure], resampling: Resampling | None = None
) -> dict[str, float]:
    """Test left-right measures against the hypothesis that sides do not matter, all with the same permutations.

    Args:
        observed: Observations of the ERF.
        measures: Measures of `SIDE_MEASURES`.
        resampling: Number of permutations and seed; all permutations are used if there are no more than `resamples`.

    Returns:
        p values by measure; NaN if a side has fewer than two images, or sides can only be swapped all at once.

    Raises:
        InputError: A measure does not compare sides.
    """
    for measure in measures:
        if measure.name not in SIDE_MEASURES:
            raise InputError(
                f"measure '{measure.name}' does not compare sides; expected one of {', '.join(SIDE_MEASURES)}"
            )
    if not measures:
        return {}
    resampling, permutations = resampling or Resampling(), SidePermutations(observed)
    if min((observed.sides == side).sum() for side in ("left", "right")) < 2 or permutations.least_p == 1:
        return {measure.name: float("nan") for measure in measures}
    found = _sizes(observed, measures, np.zeros((1, int(observed.grouping.max()) + 1), bool))
    ties = found[:, 0] * (1 - _TIE)  # equal permutations must tie despite rounding
    is_exact = len(permutations) <= resampling.resamples
    permuted = (
        permutations.all()
        if is_exact
        else permutations.some(resampling.resamples, np.random.default_rng(resampling.seed))
    )
    extreme, count = np.zeros(len(measures)), 0
    while changed := list(itertools.islice(permuted, _BATCH)):
        extreme += (_sizes(observed, measures, np.stack(changed)) >= ties[:, None]).sum(1)
        count += len(changed)
    p = extreme / count if is_exact else (extreme + 1) / (count + 1)
    p[~np.isfinite(found[:, 0])] = np.nan
    return {measure.name: float(value) for measure, value in zip(measures, p, strict=True)}


def left_right_test(observed: Observations, measure: Measure, resampling: Resampling | None = None) -> float:
    """The p value of a single left-right measure."""
    return left_right_tests(observed, [measure], resampling)[measure.name]


def _sizes(observed: Observations, measures: Sequence[Measure], changed: NDArray[np.bool_]) -> Array:
    """Absolute values (K, D) of measures after changing the sides of some groups (D, G)."""
    is_left, is_right = (observed.sides == side for side in ("left", "right"))
    change = changed[:, observed.grouping]
    permuted = {
        "left": np.where(change, is_right, is_left).astype(np.float64),
        "right": np.where(change, is_left, is_right).astype(np.float64),
    }
    sample = Sample(observed, permuted["left"] + permuted["right"], permuted)
    return np.abs(np.stack([np.asarray(measure.of(sample)) for measure in measures]))
