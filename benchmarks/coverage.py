"""Measure the coverage of intervals and the false-positive rate of tests, on simulated ERFs.

    python -m benchmarks.coverage coverage paired unpaired --runs 300
    python -m benchmarks.coverage sides --runs 200
    python -m benchmarks.coverage stopping --runs 150

The results are the tables of docs/measures.md. Simulated is a network whose receptive field is a Gaussian with random
position, width and mass in each image. Latent values of images of the same patient have a correlation of 0.8. Masses
are independent of shapes, so that the true value is the mean over shapes. Results depend only on `--seed`.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm
from scipy.stats import t as student

from erf.cli.tables import print_table
from erf.measures import MEASURES, Grid
from erf.results.grid import Array
from erf.uncertainty import Observations, Resampling, StoppingRule, compare, estimate, left_right_test

SIZE, BLOCK, CENTER = (48, 40), 2, (24.0, 20.0)
ALIKE = 0.8
NAMES = ("r50", "rms_radius", "fwhm_x", "effective_area", "shift_x", "lean", "variability")
DESIGNS = ((4, 1), (6, 1), (10, 1), (20, 1), (60, 1), (10, 4))
"""Study designs: (number of patients, images per patient)."""
LOOKED_AT = (12, 18, 27, 40, 60, 90, 135, 202, 303, 454, 681, 1021)


@dataclass(frozen=True)
class Population:
    """Distribution of images, each with a Gaussian map of random position, width and mass."""

    name: str
    masses: Callable[[Array], Array] = np.ones_like
    """Masses as a function of the images' latent values, which are normal."""
    places: Callable[[Array], Array] = lambda latent: latent
    wobble: float = 3.0
    sizes: float = 0.3
    lean: float = 1.0
    """Shift of the receptive field to the right for right breasts, and to the left for left ones, in pixels."""

    def draw(
        self, rng: np.random.Generator, count: int, images: int = 1, *, both_sides: bool = True
    ) -> tuple[Observations, Observations]:
        """Draw two ERFs of the same images, from networks that do not differ systematically.

        Args:
            rng: random generator.
            count: number of patients.
            images: images per patient.
            both_sides: whether each patient has images of both breasts.
        """
        patients = np.repeat(np.arange(count), images)
        of_image = patients if images == 1 or not both_sides else np.arange(len(patients))
        sides = np.array(["left", "right"])[of_image % 2]
        shared = self._latent(rng, patients, 4)
        one, two = (
            self._observed(np.sqrt(0.5) * (shared + self._latent(rng, patients, 4)), patients, sides) for _ in range(2)
        )
        return one, two

    def truth(self, names: Sequence[str]) -> Array:
        """Compute the true measures from 20,000 images of equal mass; from 2,000 if all pairs must be compared."""
        alike = replace(self, masses=np.ones_like)
        many = alike.draw(np.random.default_rng(99), 20_000)[0]
        few = many.pick(np.arange(2000))
        return np.array([float(MEASURES[name].of((few if name == "variability" else many).all())) for name in names])

    @staticmethod
    def _latent(rng: np.random.Generator, patients: NDArray[np.intp], kinds: int) -> Array:
        """Draw normal values (kinds, N) that are correlated between images of the same patient."""
        if len(set(patients)) == len(patients):
            return rng.standard_normal((kinds, len(patients)))
        of_patient = rng.standard_normal((kinds, patients.max() + 1))[:, patients]
        return np.sqrt(ALIKE) * of_patient + np.sqrt(1 - ALIKE) * rng.standard_normal((kinds, len(patients)))

    def _observed(self, latent: Array, patients: NDArray[np.intp], sides: NDArray[np.str_]) -> Observations:
        mass = self.masses(latent[0])[:, None]
        sigma = 6 * np.exp(self.sizes * latent[1])
        middle = CENTER[1] + self.wobble * self.places(latent[2]) + np.where(sides == "right", self.lean, -self.lean)
        across_rows, across_columns = (
            _bells(length, center, sigma) for length, center in ((SIZE[1], middle), (SIZE[0], CENTER[0]))
        )
        rows, columns = (
            np.add.reduceat(curve, np.arange(0, curve.shape[1], BLOCK), axis=1)
            for curve in (across_rows, across_columns)
        )
        return Observations(
            grid=Grid(SIZE, BLOCK, CENTER),
            small=(mass * columns)[:, :, None] * rows[:, None],
            across_rows=mass * across_rows,
            across_columns=mass * across_columns,
            sides=sides,
            groups=patients.astype(str),
            keys=np.arange(len(patients)).astype(str),
        )


def _bells(length: int, center: Array | float, sigma: Array) -> Array:
    distance = np.arange(length) - np.reshape(center, (-1, 1))
    bells = np.exp(-(distance**2) / (2 * sigma[:, None] ** 2)) + 1e-300
    return np.asarray(bells / bells.sum(1, keepdims=True))


POPULATIONS = (
    Population("equal masses"),
    Population("log-normal masses, sigma 0.5", lambda latent: np.exp(0.5 * latent)),
    Population("log-normal masses, sigma 1.5", lambda latent: np.exp(1.5 * latent)),
    Population("Pareto masses, exponent 1.5", lambda latent: norm.sf(latent) ** (-1 / 1.5)),
    Population("places by t of 3 df", places=lambda latent: student.ppf(norm.cdf(latent), 3), wobble=2.0),
)


def coverage(population: Population, count: int, images: int, runs: int, seed: int, names: Sequence[str]) -> Array:
    """Estimate, for each measure, the share of runs whose 95 % interval contains the true value."""
    rng, truth = np.random.default_rng(seed), population.truth(names)
    measures, inside = [MEASURES[name] for name in names], np.zeros(len(names))
    for _ in range(runs):
        found = estimate(population.draw(rng, count, images)[0], measures)
        inside += [found[name].low <= value <= found[name].high for name, value in zip(names, truth, strict=True)]
    return inside / runs


def false_alarms(
    population: Population, count: int, images: int, runs: int, seed: int, names: Sequence[str], *, paired: bool
) -> Array:
    """Estimate, for each measure, the share of runs with p < 0.05 although there is no difference."""
    rng = np.random.default_rng(seed)
    measures, found = [MEASURES[name] for name in names], np.zeros(len(names))
    for _ in range(runs):
        one, two = population.draw(rng, count, images)
        if not paired:
            other = population.draw(rng, count, images)[0]
            two = replace(other, keys=np.char.add("other ", other.keys))
        differences = compare(one, two, measures)
        found += [differences[name].p < 0.05 for name in names]
    return found / runs


def sides(
    population: Population, count: int, images: int, runs: int, seed: int, *, both_sides: bool, name: str = "lean"
) -> tuple[float, float]:
    """Estimate the share of runs with p < 0.05 for left against right, and of those whose interval excludes 0."""
    rng, found = np.random.default_rng(seed), np.zeros(2)
    for run in range(runs):
        seen = population.draw(rng, count, images, both_sides=both_sides)[0]
        interval = estimate(seen, [MEASURES[name]])[name]
        p = left_right_test(seen, MEASURES[name], Resampling(resamples=1000, seed=run))
        found += [p < 0.05, interval.low > 0 or interval.high < 0]
    return float(found[0] / runs), float(found[1] / runs)


def stopping(population: Population, relative: float, runs: int, seed: int) -> tuple[float, float]:
    """Estimate the coverage of the first interval that is narrow enough, and the mean number of images used."""
    rng, truth, rule = np.random.default_rng(seed), population.truth(["r50"])[0], StoppingRule(relative)
    inside = taken = 0
    for _ in range(runs):
        seen = population.draw(rng, LOOKED_AT[-1])[0]
        for number in LOOKED_AT:
            interval = rule.estimate(seen.pick(np.arange(number)))
            if rule.is_reached(interval):
                break
        inside += interval.low <= truth <= interval.high
        taken += number
    return inside / runs, taken / runs


def _cells(values: Array) -> list[str]:
    return [f"{100 * value:.1f}" for value in values]


def _number(count: int, images: int) -> str:
    return f"{count}" if images == 1 else f"{count} x {images}"


def _shares(table: str, runs: int, seed: int) -> list[list[str]]:
    """Return the rows of table `coverage`, or of the false-positive rates of `paired` or `unpaired` differences."""

    def share(population: Population, count: int, images: int) -> Array:
        if table == "coverage":
            return coverage(population, count, images, runs, seed, NAMES)
        return false_alarms(population, count, images, runs, seed, NAMES, paired=table == "paired")

    return [
        [population.name, _number(count, images), *_cells(share(population, count, images))]
        for population in POPULATIONS
        for count, images in DESIGNS
    ]


def _sides(runs: int, seed: int) -> list[list[str]]:
    return [
        [population.name, f"{_number(count, images)}, {'both sides' if both else 'one side'}", f"{lean:g} px", *cells]
        for population in POPULATIONS
        for count, images, both in ((10, 4, True), (10, 4, False), (20, 1, False))
        for lean in (0.0, 2.0)
        for cells in [
            _cells(np.array(sides(replace(population, lean=lean), count, images, runs, seed, both_sides=both)))
        ]
    ]


def _stops(runs: int, seed: int) -> list[list[str]]:
    return [
        [population.name, f"{100 * held:.1f}", f"{taken:.0f}"]
        for population in POPULATIONS
        for held, taken in [stopping(population, 0.1, runs, seed)]
    ]


TABLES: dict[str, tuple[str, Sequence[str], Callable[[int, int], list[list[str]]]]] = {
    "coverage": ("coverage of 95 % intervals [%]", NAMES, partial(_shares, "coverage")),
    "paired": ("p < 0.05 of paired differences that are not there [%]", NAMES, partial(_shares, "paired")),
    "unpaired": ("p < 0.05 of unpaired differences that are not there [%]", NAMES, partial(_shares, "unpaired")),
    "sides": ("p < 0.05 of left against right, intervals of lean without 0 [%]", ("lean", "test", "interval"), _sides),
    "stopping": ("--until 0.1: coverage of r50 at the stop [%]", ("coverage", "images taken"), _stops),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", default=list(TABLES), choices=TABLES)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    for name in chosen.tables:
        title, columns, rows = TABLES[name]
        first = ["population"] if name == "stopping" else ["population", "patients"]
        print_table(title, [*first, *columns], rows(chosen.runs, chosen.seed), left=len(first))


if __name__ == "__main__":
    main()
