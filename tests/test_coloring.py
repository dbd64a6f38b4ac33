"""Transfer functions, clipping, joint scales and contours of published figures, and ranks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

import erf
from erf.cli import app
from erf.plotting import Coloring, compare
from erf.plotting.layouts import LAYOUTS
from erf.plotting.ranks import FACTORS, Ranking, area_ratios, radii
from erf.results import ERF

SIZE = 65


def gaussian(sigma: float, mass: float = 1.0, floor: float = 0.0) -> NDArray[np.float64]:
    y, x = np.ogrid[:SIZE, :SIZE]
    values = np.exp(-((y - 32) ** 2 + (x - 32) ** 2) / (2 * sigma**2)) + floor
    return np.asarray(mass * values / values.sum())


def imported(**maps: Any) -> list[ERF]:
    return [erf.import_map(values, title=name) for name, values in maps.items()]


@pytest.fixture
def pair() -> list[ERF]:
    return imported(narrow=gaussian(3), wide=gaussian(9, mass=50))


def image(figure: Any, place: int) -> NDArray[np.float64]:
    return np.asarray(figure.axes[place].images[0].get_array())


def test_replknets_colours_take_the_map_itself(pair: list[ERF]) -> None:
    figure = LAYOUTS["overview"](compare(pair, coloring=Coloring("log1p", "RdYlGn")))
    for place, each in enumerate(pair):
        values = np.log10(1 + each["all"].mean)
        np.testing.assert_allclose(image(figure, place), values / values.max(), atol=1e-6)
        assert figure.axes[place].images[0].get_cmap().name == "RdYlGn"
    (caption,) = [line for line in figure.get_supxlabel().splitlines() if line.startswith("Colours")]
    assert "log10(1 + map)" in caption
    assert caption.endswith("RdYlGn.")


def test_a_joint_scale_is_of_the_density_of_mass(pair: list[ERF]) -> None:
    own = LAYOUTS["overview"](compare(pair, coloring=Coloring("power:0.25")))
    joint = LAYOUTS["overview"](compare(pair, coloring=Coloring("power:0.25", joint=True)))
    assert [image(own, place).max() for place in (0, 1)] == pytest.approx([1, 1], abs=1e-6)
    assert image(joint, 0).max() == pytest.approx(1, abs=1e-6)
    # A wider Gaussian of one mass is lower by the ratio of the areas; its unit, here 50 times larger, does not matter.
    assert image(joint, 1).max() == pytest.approx((gaussian(9).max() / gaussian(3).max()) ** 0.25, abs=1e-5)
    absolute = LAYOUTS["overview"](compare(pair, coloring=Coloring("log1p", joint=True)))
    assert image(absolute, 1).max() == pytest.approx(1, abs=1e-6)
    assert image(absolute, 0).max() < 1


def test_clipping_is_at_percentiles(pair: list[ERF]) -> None:
    figure = LAYOUTS["overview"](compare(pair, coloring=Coloring("linear", clip=(10, 90))))
    values = pair[1]["all"].mean
    low, high = np.percentile(values, [10, 90])
    np.testing.assert_allclose(image(figure, 1), np.clip((values - low) / (high - low), 0, 1), atol=1e-5)
    assert Coloring(clip=(1, 50)).limits(np.array([0.0, 0.0, 0.0, 7.0])) == (0, 7)  # percentiles that coincide
    signed = Coloring("linear", clip=(50, 100))
    np.testing.assert_allclose(
        signed.shown(np.array([-4.0, 1.0]), signed.limits(np.array([-4.0, 1.0]), True)), [-1, 0.25]
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"scale": "power:2"}, "P above 0 and up to 1"),
        ({"scale": "power:x"}, "expected one of log, sqrt, linear, log1p, power:P"),
        ({"colors": "jet"}, "expected one of viridis"),
        ({"clip": (99, 1)}, "such as 1 and 99.5"),
        ({"layout": "contours", "shares": [1.5]}, "between 0 and 1"),
        ({"layout": "contours", "shares": [0.1, 0.2, 0.3, 0.4, 0.5]}, "at most 4"),
        ({"layout": "radial", "joint_scale": True}, "has its own colours"),
    ],
)
def test_what_is_not_known_is_one_line(pair: list[ERF], options: dict[str, Any], words: str) -> None:
    with pytest.raises(erf.InputError, match=words) as error:
        erf.plot(pair, **options)
    assert "\n" not in str(error.value)


def test_contours_of_chosen_shares(pair: list[ERF]) -> None:
    figure = erf.plot(pair, layout="contours", shares=[0.5, 0.2])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["narrow", "wide", "20 % of the mass", "50 % of the mass"]


def test_the_area_ratio_changes_the_order_and_r50_does_not() -> None:
    """A narrow peak on a wide floor against a plateau: the logarithm lifts the floor as the factor grows."""
    seen = compare(imported(peak=gaussian(2, floor=2e-3), plateau=gaussian(7), small=gaussian(1)))
    ratios, sizes = area_ratios(seen, "all"), radii(seen, "all")
    assert sizes.swapped == 0
    assert sizes.tau == pytest.approx(1)
    assert len(np.unique(sizes.ranks, axis=1).T) == 1
    assert ratios.ranks[0, 0] > ratios.ranks[1, 0]
    assert ratios.ranks[0, -1] < ratios.ranks[1, -1]


def test_ranks_by_hand() -> None:
    values = np.ones((3, len(FACTORS)))
    values[:, 0], values[:, 6] = [3, 2, 1], [1, np.nan, 1]
    ranking = Ranking(values)
    assert ranking.ranks[:, 0].tolist() == [1, 2, 3]
    assert ranking.ranks[:, 6].tolist() == [1.5, 3, 1.5]
    assert ranking.swapped == 1  # the second and the third; the first and the third are equal later
    assert ranking.tau == pytest.approx(0)  # one pair kept, one swapped


def test_the_command_draws_maps_of_several_sizes_by_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    erf.save(erf.import_map(gaussian(3), title="a"), "a.h5")
    erf.save(erf.import_map(gaussian(9)[:, 5:-5], title="b"), "b.h5")
    run = CliRunner().invoke
    assert run(app, ["plot", "a.h5", "b.h5", "--layout", "ranks", "-o", "ranks.png"]).exit_code == 0
    assert "one size to draw them on the same axes" in run(app, ["plot", "a.h5", "b.h5", "-o", "x.png"]).output
    assert "two or more ERFs" in run(app, ["plot", "a.h5", "--layout", "ranks", "-o", "x.png"]).output
    options = "plot a.h5 --scale power:0.2 --clip 1,99.5 --colors coolwarm --joint-scale"
    assert run(app, f"{options} -o x.png".split()).exit_code == 0
    assert run(app, f"{options} -o x.html".split()).exit_code == 0
    assert "to the power of 0.2; from percentile 1 to 99.5" in Path("x.html").read_text()
    for bad, words in (("--clip 1", "expected 2 numbers"), ("--shares x --layout contours", "expected some numbers")):
        result = run(app, f"plot a.h5 -o y.png {bad}".split())
        assert (result.exit_code, words in result.output) == (2, True), result.output
