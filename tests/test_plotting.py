"""Pictures: what they are drawn from, and that every part of them is there."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

import erf
from erf.engine import compute_layers
from erf.errors import InputError, OutputError
from erf.measures import MEASURES, observe, smooth, stretch_length
from erf.plotting import LAYOUT_NAMES, SUFFIXES
from erf.plotting.coloring import Coloring
from erf.plotting.contours import enclosing_levels
from erf.plotting.figure import draw_figure
from erf.plotting.layouts import LAYOUTS
from erf.plotting.page import draw_page
from erf.plotting.panels import caption, compare, shrink, square_root
from erf.results import ERF
from tests.conftest import SIDES, small_network


def renamed(result: ERF, model: str) -> ERF:
    return dataclasses.replace(result, provenance=dataclasses.replace(result.provenance, model=model))


@pytest.fixture
def pair(arrays: list[np.ndarray]) -> list[ERF]:
    """Two ERFs with all definitions, called gmic and hct."""
    images = erf.from_arrays(arrays, SIDES)
    results = [erf.compute(small_network(seed), images, layer="5", definitions=("abs", "signed")) for seed in (0, 1)]
    return [renamed(result, name) for result, name in zip(results, ("gmic", "hct"), strict=True)]


def test_shrinking_keeps_means_and_cut_blocks() -> None:
    values = np.random.default_rng(0).random((10, 7)).astype(np.float32)
    small, block = shrink(values, 4)
    assert block == 3
    assert small.shape == (4, 3)
    np.testing.assert_allclose(small[0, 0], values[:3, :3].mean(), rtol=1e-6)
    np.testing.assert_allclose(small[3, 2], values[9:, 6:].mean(), rtol=1e-6)


def test_curves_are_shares_and_smoothing_keeps_their_sum(pair: list[ERF]) -> None:
    panel = compare(pair).panels[0, "left"]
    assert abs(panel.across_rows.sum() - 1000) < 1e-9
    assert abs(panel.across_columns.sum() - 1000) < 1e-9
    positions, means = smooth(np.arange(10.0), 4)
    assert positions.tolist() == [1.5, 5.5, 8.5]
    assert means.tolist() == [1.5, 5.5, 8.5]
    assert [stretch_length(length) for length in (100, 192, 1024, 1025, 3328)] == [1, 4, 4, 8, 16]


def test_colour_scales() -> None:
    values = np.array([[1, 0.01, 0, -0.01]], dtype=np.float32)
    for scale, small in (("log", 0.5), ("sqrt", 0.1), ("linear", 0.01), ("power:0.25", 0.01**0.25)):
        np.testing.assert_allclose(Coloring(scale).shown(values, (0, 1)), [[1, small, 0, -small]], atol=1e-6)
    shown = Coloring("log1p").shown(np.array([[99.0, 9.0, 0.0]]), (0, 99))
    np.testing.assert_allclose(shown, [[1, 0.5, 0]], atol=1e-12)  # log10(1 + x) / 2
    assert square_root(np.array([-4.0, 9.0])).tolist() == [-2, 3]


def test_colours_and_subsets(pair: list[ERF]) -> None:
    comparison = compare([*pair, renamed(pair[0], "def-gmic"), renamed(pair[0], "mine"), pair[0]])
    assert comparison.colors[:3] == ("#1f77b4", "#ff7f0e", "#2ca02c")  # blue, orange and green, as in the paper
    assert len(set(comparison.colors)) == 5
    assert comparison.subsets == ("all", "left", "right")


@pytest.mark.parametrize("definition", ["abs", "signed"])
def test_the_figure_has_all_its_parts(pair: list[ERF], definition: str) -> None:
    comparison = compare(pair, definition=definition)
    figure = draw_figure(comparison)
    *axes, bar = figure.axes
    assert len(axes) == 3 * 6
    titles = [axis.get_title() for axis in axes[:6]]
    assert titles == [
        "gmic",
        "hct",
        "Sum across rows",
        "Sum across columns",
        "√ of the sum across rows",
        "√ of the sum across columns",
    ]
    curve: Any = axes[2].lines[0]
    np.testing.assert_allclose(curve.get_ydata(), comparison.panels[0, "all"].across_rows)
    box = pair[0].provenance.field_box()
    assert box is not None
    lines: list[Any] = list(axes[2].lines)
    assert {round(float(line.get_xdata()[0]), 6) for line in lines} >= {box.left, box.right}
    frame: Any
    (frame,) = axes[0].patches
    assert (frame.get_x(), frame.get_y(), frame.get_width()) == (box.left, box.top, box.right - box.left)
    assert all(axis.get_xlabel() in ("x [px]", "y [px]") for axis in axes[12:])
    assert "log scale" in bar.get_xlabel()
    assert f"Definition '{definition}'" in figure.texts[-1].get_text() + figure.get_supxlabel()


def test_the_caption_says_what_was_measured(pair: list[ERF]) -> None:
    words = caption(compare(pair))
    for part in ("abs", "gmic (its own weights)", "layer 5", "unit 5,4 centred at y 20, x 16 px", "25 × 25 px"):
        assert part in words
    infinite = dataclasses.replace(pair[0].provenance, field_size=(np.inf, np.inf), weights="w.pt")
    words = caption(compare([dataclasses.replace(pair[0], provenance=infinite)]))
    assert "the whole image" in words
    assert "weights w.pt" in words


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_of_file(pair: list[ERF], tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    assert erf.plot(pair, path) == path
    start = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF", ".html": b"<!DOCTYPE html>"}[suffix]
    assert path.read_bytes().startswith(start)
    assert list(tmp_path.iterdir()) == [path]


def test_the_page_needs_no_network_and_escapes_what_it_shows(pair: list[ERF]) -> None:
    page = draw_page(compare(pair, labels=["<script>alert(1)</script>", "b & c"]))
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert 'src="http' not in page
    assert '<link rel="stylesheet" href="http' not in page


def test_one_erf_and_one_subset(pair: list[ERF], tmp_path: Path) -> None:
    assert erf.plot(pair[0], tmp_path / "a.png", subsets=["left"], scale="sqrt").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"definition": "square"}, "no definition 'square'"),
        ({"subsets": ["both"]}, "no subset 'both'"),
        ({"labels": ["one"]}, "found 1 labels for 2 ERFs"),
        ({"scale": "cubic"}, "scale 'cubic' not known; expected one of log, sqrt, linear"),
    ],
)
def test_what_cannot_be_drawn_is_told(pair: list[ERF], tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        erf.plot(pair, tmp_path / "a.png", **options)
    assert not list(tmp_path.iterdir())


def test_unlike_sizes_are_refused(pair: list[ERF], tmp_path: Path) -> None:
    other = erf.compute(small_network(), erf.from_arrays([np.random.default_rng(0).random((1, 50, 32))]), layer="5")
    with pytest.raises(InputError, match="input sizes 40x32, 50x32; expected one size"):
        erf.plot([pair[0], other], tmp_path / "a.png")
    with pytest.raises(InputError, match="nothing to plot"):
        erf.plot([], tmp_path / "a.png")


def test_unwritable_pictures(pair: list[ERF], tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        erf.plot(pair, tmp_path / "nowhere" / "a.png")
    (tmp_path / "a.png").write_text("precious")
    with pytest.raises(OutputError, match=r"a\.png exists"):
        erf.plot(pair, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_text() == "precious"


def titles(figure: Figure) -> list[str]:
    return [axis.get_title() for axis in figure.axes]


def test_the_papers_first_table(pair: list[ERF]) -> None:
    figure = LAYOUTS["paper"](compare(pair))
    assert titles(figure)[:8] == [
        "gmic", "hct", "Across rows", "Across columns", "√ gmic", "√ hct", "√ across rows", "√ across columns",
    ]  # fmt: skip
    rows = [axis.get_ylabel().split("\n")[0] for axis in figure.axes[:24:8]]
    assert rows == ["both, N = 6", "right, N = 2", "left, N = 3"]
    # One scale for the curves of a column, and for all maps of a kind.
    for column in (2, 3, 6, 7):
        assert len({axis.get_ylim() for axis in figure.axes[column:24:8]}) == 1
    assert len({axis.images[0].get_clim() for axis in figure.axes[:24] if axis.images}) == 2
    curve: Any = figure.axes[2].lines[0].get_ydata()
    _, means = smooth(pair[0].statistics().across_rows / pair[0].statistics().across_rows.sum() * 1000, 1)
    np.testing.assert_allclose(curve, means, rtol=1e-5)


def test_the_papers_second_table(pair: list[ERF]) -> None:
    figure = LAYOUTS["paper-curves"](compare(pair))
    assert titles(figure)[:3] == ["both, N = 6", "right, N = 2", "left, N = 3"]
    assert [axis.get_xlabel() for axis in figure.axes] == ["y [px]"] * 3 + ["x [px]"] * 3
    with pytest.raises(erf.InputError, match="square roots"):
        LAYOUTS["paper"](compare(pair, definition="signed"))


def test_differences_sum_to_nothing(pair: list[ERF]) -> None:
    figure = LAYOUTS["differences"](compare(pair))
    names = [title.replace("\n", " ") for title in titles(figure) if title]
    assert names == [
        *(f"hct − gmic {subset}" for subset in ("all", "left", "right")),
        "gmic right − left",
        "hct right − left",
    ]
    for axis in figure.axes[:5]:
        values: Any = axis.images[0].get_array()
        assert abs(values.sum()) < 1e-6 * np.abs(values).sum()
    same = LAYOUTS["differences"](compare([pair[0], pair[0]], subsets=["all"]))
    assert not np.any(same.axes[0].images[0].get_array())
    with pytest.raises(erf.InputError, match="nothing to subtract"):
        LAYOUTS["differences"](compare([pair[0]], subsets=["all"]))


def test_contours_enclose_their_share() -> None:
    y, x = np.mgrid[:60, :50]
    density = np.exp(-((y - 30.2) ** 2) / 120 - (x - 25.3) ** 2 / 90)  # off the grid: no ties
    levels = enclosing_levels(density, density, (0.99, 0.9, 0.5))
    assert levels == sorted(levels)
    for level, share in zip(levels, (0.99, 0.9, 0.5), strict=True):
        assert density[density >= level].sum() / density.sum() == pytest.approx(share, abs=0.01)


def test_radial_profiles_end_at_everything(pair: list[ERF]) -> None:
    figure = LAYOUTS["radial"](compare(pair))
    held: Any = figure.axes[0].lines[0].get_ydata()
    assert held[0] == 0
    assert held[-1] == pytest.approx(100)
    assert (np.diff(held) >= 0).all()


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "growth"])  # which needs several layers
def test_every_layout_is_written(pair: list[ERF], layout: str, tmp_path: Path) -> None:
    path = erf.plot(pair, tmp_path / "a.png", layout=layout)
    assert path.stat().st_size > 10_000
    assert tuple(LAYOUTS) == LAYOUT_NAMES
    if layout != "overview":
        with pytest.raises(erf.InputError, match="of an HTML page not known"):
            erf.plot(pair, tmp_path / "a.html", layout=layout)


def test_the_text_below_a_narrow_figure_is_wrapped(pair: list[ERF]) -> None:
    figure = LAYOUTS["contours"](compare(pair, subsets=["left"]))
    (text,) = (text for text in figure.texts if text.get_text().startswith("Definition"))
    assert text.get_window_extent().x1 < figure.bbox.x1


def test_growth_puts_layers_in_the_order_of_the_pass(arrays: list[np.ndarray], tmp_path: Path) -> None:
    images = erf.from_arrays(arrays, SIDES)
    erfs = compute_layers(small_network(), images, ["5", "0", "2"])
    figure = LAYOUTS["growth"](compare(erfs))
    assert titles(figure)[:3] == ["0", "2", "5"]
    assert erf.plot(erfs, tmp_path / "growth.pdf", layout="growth").stat().st_size > 1000
    axis = figure.axes[3]
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["0", "2", "5"]
    fields = [erf_.provenance.field_size[0] / 2 for erf_ in (erfs[1], erfs[2], erfs[0])]
    dashed = next(line for line in axis.lines if line.get_linestyle() == "--")
    np.testing.assert_array_equal(dashed.get_ydata(), fields)
    rms: Any = next(line for line in axis.lines if line.get_label() == "rms").get_ydata()
    assert list(rms) == sorted(rms)
    with pytest.raises(erf.InputError, match="expected files of two or more layers of one"):
        LAYOUTS["growth"](compare(erfs[:1]))


def test_convergence_ends_at_all_images(pair: list[ERF]) -> None:
    figure = LAYOUTS["convergence"](compare(pair))
    assert titles(figure)[0] == "r50 [px]"
    line: Any = figure.axes[0].lines[0]
    assert line.get_xdata()[-1] == 6
    assert line.get_ydata()[-1] == pytest.approx(float(MEASURES["r50"].of(observe(pair[0]).all())))
