"""Pictures: what they are drawn from, and that every part of them is there."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import erf
from erf.errors import InputError, OutputError
from erf.measures import smooth, stretch_length
from erf.plotting import SUFFIXES
from erf.plotting.figure import draw_figure
from erf.plotting.page import draw_page
from erf.plotting.panels import caption, colored, compare, shrink, square_root
from erf.result import ERF
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
    assert [stretch_length(length) for length in (100, 1024, 1025, 3328)] == [4, 4, 8, 16]


def test_colour_scales(pair: list[ERF]) -> None:
    panel = dataclasses.replace(compare(pair).panels[0, "all"], map=np.array([[1, 0.01, 0, -0.01]], dtype=np.float32))
    np.testing.assert_allclose(colored(panel, "log"), [[1, 0.5, 0, -0.5]], atol=1e-6)
    np.testing.assert_allclose(colored(panel, "sqrt"), [[1, 0.1, 0, -0.1]], atol=1e-6)
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
    curve = axes[2].lines[0]
    np.testing.assert_allclose(curve.get_ydata(), comparison.panels[0, "all"].across_rows)
    box = pair[0].provenance.field_box()
    assert box is not None
    assert {round(float(line.get_xdata()[0]), 6) for line in axes[2].lines} >= {box[2], box[3]}
    (frame,) = axes[0].patches
    assert (frame.get_x(), frame.get_y(), frame.get_width()) == (box[2], box[0], box[3] - box[2])
    assert all(axis.get_xlabel() in ("x [px]", "y [px]") for axis in axes[12:])
    assert "log scale" in bar.get_xlabel()
    assert f"Definition '{definition}'" in figure.texts[-1].get_text() + figure._supxlabel.get_text()


def test_the_caption_says_what_was_measured(pair: list[ERF]) -> None:
    words = caption(compare(pair))
    for part in ("abs", "gmic (untrained, seed 0)", "layer 5", "unit 5,4 centred at y 20, x 16 px", "25 × 25 px"):
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
def test_what_cannot_be_drawn_is_told(pair: list[ERF], tmp_path: Path, options: dict, message: str) -> None:
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
