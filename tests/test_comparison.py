"""Tables of measures: what may be compared, what is printed, and that every number can be had again."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

import erf
from erf.cli import app
from erf.comparison import FORMATS, render, tabulate
from erf.comparison.formats import difference_rows, format_interval, value_rows
from erf.comparison.mirror import mirror_test
from erf.measures import MEASURES, RESOLUTION, observe, pick_measures
from erf.results import ERF, labels_of
from erf.text import format_p
from erf.uncertainty import Interval, Resampling, compare, estimate, left_right_tests
from tests.conftest import small_network

QUICK = Resampling(resamples=200)
SIDES = ["left", "right"] * 5


@pytest.fixture(scope="module")
def pair() -> list[ERF]:
    """Two networks on the same ten images."""
    arrays = [np.random.default_rng(seed).standard_normal((1, 40, 32)) for seed in range(10)]
    return [
        erf.compute(
            small_network(seed),
            erf.from_arrays(arrays, SIDES),
            layer="5",
            seed=seed,
            origin=erf.Origin(model=name),
            device="cpu",
        )
        for seed, name in enumerate(("first", "second"))
    ]


@pytest.fixture
def files(pair: list[ERF], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for result in pair:
        erf.save(result, f"{result.provenance.model}.h5")
    return ["first.h5", "second.h5"]


def call(*words: object) -> Result:
    result = CliRunner().invoke(app, ["compare", *map(str, words)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def test_a_table_holds_what_intervals_give(pair: list[ERF]) -> None:
    measures, ratios = pick_measures(("r50", "lean", "replknet50"))
    table = tabulate(pair, measures, ratios, resampling=QUICK)
    seen = one, other = [observe(result) for result in pair]
    for index in (0, 1):
        estimates = estimate(seen[index], measures, QUICK)
        assert {name: entry.interval for name, entry in table.entries[index].items()} == estimates
    assert table.entries[0]["r50"].difference is None
    assert table.entries[1]["r50"].difference == compare(one, other, measures, QUICK)["r50"]
    assert table.entries[1]["r50"].difference.paired
    assert 0 < table.entries[0]["lean"].side_p <= 1
    assert np.isnan(table.entries[0]["r50"].side_p)
    assert table.area_ratios[0]["replknet50"] > 0
    assert table.units == "images"
    assert not table.notes


def test_p_values_are_corrected_together(pair: list[ERF]) -> None:
    """Benjamini and Hochberg by hand: sorted p times number over rank, made monotone from the end."""
    table = tabulate([*pair, pair[1]], pick_measures()[0], resampling=QUICK)
    found = sorted(
        (entry.difference.p, entry.adjusted_p)
        for row in table.entries
        for entry in row.values()
        if entry.difference is not None and np.isfinite(entry.difference.p)
    )
    raw = np.array([p for p, _ in found])
    stepped = raw * len(raw) / np.arange(1, len(raw) + 1)
    expected = np.minimum.accumulate(stepped[::-1])[::-1]
    np.testing.assert_allclose([adjusted for _, adjusted in found], np.minimum(expected, 1), rtol=1e-12)
    assert (expected > raw - 1e-12).all()


def test_unlike_files_are_refused_by_name(pair: list[ERF]) -> None:
    origin = replace(pair[1].provenance, model=pair[0].provenance.model, layer="2", normalisation="unit")
    other = replace(pair[1], provenance=origin)
    measures = pick_measures(("r50",))[0]
    with pytest.raises(erf.InputError, match=r"differ in layers 5 / 2; normalisations none / unit.*`allow_different`"):
        tabulate([pair[0], other], measures, resampling=QUICK)
    table = tabulate([pair[0], other], measures, resampling=QUICK, allow_different=True)
    assert table.notes == ("measured differently: layers 5 / 2", "measured differently: normalisations none / unit")


@pytest.mark.parametrize("changes", [{"channel": "1"}, {"method": "input-x-gradient"}, {"activation": "relu"}])
def test_other_targets_and_methods_are_not_compared_without_a_word(pair: list[ERF], changes: dict[str, Any]) -> None:
    origin = replace(pair[1].provenance, model=pair[0].provenance.model, **changes)
    with pytest.raises(erf.InputError, match=next(iter(changes))):
        tabulate([pair[0], replace(pair[1], provenance=origin)], pick_measures(("r50",))[0], resampling=QUICK)


def test_different_networks_have_layers_and_preprocessing_of_their_own(pair: list[ERF]) -> None:
    origin = replace(pair[1].provenance, model="another", layer="2", normalisation="unit")
    table = tabulate([pair[0], replace(pair[1], provenance=origin)], pick_measures(("r50",))[0], resampling=QUICK)
    assert {"measured differently: layers 5 / 2", "measured differently: normalisations none / unit"} <= set(
        table.notes
    )
    mirrored = replace(pair[1], provenance=replace(origin, mirrored=True))
    with pytest.raises(erf.InputError, match="differ in mirroring False / True; compare"):
        tabulate([pair[0], mirrored], pick_measures(("r50",))[0], resampling=QUICK)


def test_other_images_are_not_paired(pair: list[ERF]) -> None:
    stranger = replace(pair[1], images=tuple(replace(image, sha256=f"x{image.sha256}") for image in pair[1].images))
    table = tabulate([pair[0], stranger], pick_measures(("r50",))[0], resampling=QUICK)
    assert table.notes == ("differences of second are not paired: not the same images as first",)


def test_millimetres_where_the_spacing_is_known(pair: list[ERF]) -> None:
    spaced = replace(pair[0], images=tuple(replace(image, pixel_spacing=0.07) for image in pair[0].images))
    measures = pick_measures(("r50", "gini"))[0]
    table = tabulate([spaced], measures, resampling=QUICK)
    assert table.shown(0, MEASURES["r50"], millimetres=True) == (0.07, "mm")
    assert table.shown(0, MEASURES["r50"]) == (1.0, "px")
    assert table.shown(0, MEASURES["gini"], millimetres=True) == (1.0, "")
    mixed = replace(spaced, images=(*spaced.images[1:], replace(spaced.images[0], pixel_spacing=0.1)))
    assert tabulate([mixed], measures, resampling=QUICK).shown(0, MEASURES["r50"], millimetres=True) == (1.0, "px")


def test_files_for_programs_are_in_millimetres_where_these_are_asked_for(pair: list[ERF]) -> None:
    one, two = (
        replace(result, images=tuple(replace(image, pixel_spacing=spacing) for image in result.images))
        for result, spacing in zip(pair, (0.07, 0.1), strict=True)
    )
    table = tabulate([one, two], pick_measures(("r50", "gini"))[0], resampling=QUICK, allow_different=True)
    rows = {
        millimetres: [
            list(csv.DictReader(io.StringIO(table.to_csv(millimetres=millimetres)))),
            json.loads(table.to_json(millimetres=millimetres))["values"],
        ]
        for millimetres in (False, True)
    }
    for pixels, lengths in zip(rows[False], rows[True], strict=True):
        assert [row["unit"] for row in pixels] == ["px", "", "px", ""]
        assert [row["unit"] for row in lengths] == ["mm", "", "mm", ""]
        for index, factor in enumerate((0.07, 1, 0.1, 1)):
            for name in ("value", "low", "high"):
                assert float(lengths[index][name]) == pytest.approx(factor * float(pixels[index][name]), rel=1e-12)
        assert pixels[2]["difference"]
        assert not lengths[2].get("difference")  # of other spacings
        assert float(lengths[3]["difference"]) == float(pixels[3]["difference"])
    assert json.loads(table.to_json(millimetres=True))["measures"]["r50"]["unit"] == "mm"


@pytest.mark.parametrize(
    ("interval", "words"),
    [
        (Interval(412.34, 401.2, 420.9), "412.3 [401.2, 420.9]"),
        (Interval(412.34, 301.2, 520.9), "412 [301, 521]"),
        (Interval(0.99283, 0.99141, 0.99532), "0.9928 [0.9914, 0.9953]"),
        (Interval(556247.1, 482961.5, 656937.6), "556,247 [482,962, 656,938]"),
        (Interval(1.0, 1.0, 1.0), "1.000 [1.000, 1.000]"),
        (Interval(3.14159, float("nan"), float("nan")), "3.142"),
        (Interval(float("nan"), float("nan"), float("nan")), "–"),
        (Interval(1.2e-7, 1e-7, 1.4e-7), "1.2e-07 [1e-07, 1.4e-07]"),
        (Interval(1e-5, 1e-5, 1e-5), "1e-05 [1e-05, 1e-05]"),
        (Interval(-0.0, -0.1, 0.1), "0.00 [-0.10, 0.10]"),
    ],
)
def test_numbers_are_rounded_by_their_interval(interval: Interval, words: str) -> None:
    assert format_interval(interval) == words


def test_every_form_holds_every_number(pair: list[ERF]) -> None:
    measures, ratios = pick_measures(("all",))
    table = tabulate(pair, measures, ratios, resampling=QUICK)
    texts = {kind: render(table, kind) for kind in FORMATS}
    lines = list(csv.DictReader(io.StringIO(texts["csv"])))
    values = json.loads(texts["json"])["values"]
    assert len(lines) == len(values) == 2 * (len(measures) + len(ratios))
    for line, value in zip(lines, values, strict=True):
        assert line["measure"] == value["measure"]
        for name in ("value", "low", "high", "difference", "adjusted_p"):
            found = float(line[name]) if line[name] else None
            assert found == value.get(name)  # to the last digit
    second = next(value for value in values if value["label"] == "second" and value["measure"] == "r50")
    assert second["value"] == table.entries[1]["r50"].interval.value
    assert second["paired"] is True
    for kind in ("md", "tex"):
        assert format_interval(table.entries[0]["r50"].interval) in texts[kind]
    assert r"left\_right\_tv" in texts["tex"]
    assert "\\begin{tabular}{llrr}" in texts["tex"]


def test_the_command(files: list[str]) -> None:
    result = call(*files, "--resamples", 200, "-o", "t.csv", "-o", "t.tex")
    assert result.exit_code == 0
    for words in ("effective_area", "second − first", "95 % jackknife-t intervals over images", "200 draws, seed 0"):
        assert words in result.stdout
    assert "written: t.csv" in result.stdout
    again = call(*files, "--resamples", 200, "-o", "again.csv")
    assert again.exit_code == 0
    assert Path("t.csv").read_bytes() == Path("again.csv").read_bytes()
    assert "t.csv exists" in call(*files, "-o", "t.csv").stderr


def test_a_network_that_is_compared_with_itself_does_not_differ(files: list[str]) -> None:
    call("first.h5", "first.h5", "--resamples", 200, "-o", "t.json")
    values = [value for value in json.loads(Path("t.json").read_text())["values"] if "difference" in value]
    assert values
    assert all(value["difference"] == 0 and value["adjusted_p"] == 1 for value in values)


def test_every_measure_is_explained() -> None:
    shown = CliRunner().invoke(app, ["compare", "--list"], env={"COLUMNS": "400"}).stdout
    for name, measure in MEASURES.items():
        assert name in shown
        assert measure.description in shown
        assert RESOLUTION[measure.part] in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to compare"),
        (["lost.h5"], "no such file"),
        (["first.h5", "--measures", "r51"], "no measure 'r51'"),
        (["first.h5", "--subset", "top"], "no subset 'top'"),
        (["first.h5", "--definition", "signed"], "'signed' has negative values"),
        (["first.h5", "--definition", "relu"], "no definition 'relu'"),
        (["first.h5", "--interval", "z"], "interval 'z' not known"),
        (["first.h5", "--level", "95"], "level 95"),
        (["first.h5", "--labels", "a,b"], "found 2 labels for 1 ERFs"),
        (["first.h5", "-o", "t.xlsx"], "suffix '.xlsx' not known; expected one of .md, .csv"),
        (["first.h5", "--resamples", "100", "-o", "no/t.csv"], "no/t.csv cannot be written"),
    ],
)
def test_bad_input_gives_one_clear_line(files: list[str], words: list[str], message: str) -> None:
    result = call(*words)
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert message in line


def test_few_images_are_noted(pair: list[ERF]) -> None:
    few = replace(
        pair[0], images=tuple(replace(image, status="failed") for image in pair[0].images[:6]) + pair[0].images[6:]
    )
    (note,) = tabulate([few], pick_measures(("r50",))[0], resampling=QUICK).notes
    assert note == "4 images are too few for intervals and p values to be relied on"


def test_a_note_is_printed_once_and_stands_in_every_format(files: list[str]) -> None:
    result = call("second.h5", "--subset", "left", "--resamples", 100, "-o", "a.md")
    note = "images are too few for intervals"
    assert result.stderr.count(note) == 1
    assert note not in result.stdout
    assert note in Path("a.md").read_text()


def test_patients_or_images_are_drawn(pair: list[ERF]) -> None:
    named = replace(
        pair[0], images=tuple(replace(image, patient_id=f"p{row // 2}") for row, image in enumerate(pair[0].images))
    )
    measures = pick_measures(("r50",))[0]
    assert tabulate([named], measures, resampling=QUICK).units == "patients"
    by_image = tabulate([named], measures, resampling=QUICK, by_patient=False)
    assert by_image.units == "images"
    plain = tabulate([pair[0]], measures, resampling=QUICK)
    assert by_image.entries[0]["r50"].interval == plain.entries[0]["r50"].interval


@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_few_images(pair: list[ERF], count: int) -> None:
    """One left, one of each, two left and one right: what can be said is said."""
    kept = [
        replace(
            result,
            images=tuple(
                image if row < count else replace(image, status="failed") for row, image in enumerate(result.images)
            ),
        )
        for result in pair
    ]
    table = tabulate(kept, pick_measures(("all",))[0], resampling=QUICK)
    for row in table.entries:
        assert np.isfinite(row["r50"].interval.value)
        assert np.isnan(row["lean"].side_p)
        assert np.isfinite(row["r50"].interval.low) == (count > 1)
    assert all(render(table, kind) for kind in FORMATS)
    assert table.notes


class _Follows(nn.Module):
    """Convolutions whose gradient is a bell around the brightest column, or one that stays where it is."""

    def __init__(self, moves: bool) -> None:
        super().__init__()
        self.moves = moves
        self.layer = nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        columns = torch.arange(x.shape[-1], dtype=x.dtype)
        middle = x.detach().sum((1, 2)).argmax(-1).to(x.dtype) if self.moves else torch.full((len(x),), 19.0)
        bell = torch.exp(-((columns - middle[:, None]) ** 2) / 18)
        return self.layer((x * bell[:, None, None]).sum((2, 3), keepdim=True).expand(-1, -1, 3, 5))


def mirrored_pair(moves: bool) -> tuple[ERF, ERF]:
    rng = np.random.default_rng(2)
    arrays = [rng.random((1, 8, 41)) for _ in range(12)]
    for array, column in zip(arrays, rng.integers(8, 33, len(arrays)), strict=True):
        array[..., column] += 10
    images = (erf.from_arrays(arrays, mirror=mirror) for mirror in (False, True))
    one, two = (erf.compute(_Follows(moves), each, layer="layer", device="cpu") for each in images)
    middle = replace(one.provenance, unit_center=(4.0, 20.0))
    return replace(one, provenance=middle), replace(two, provenance=replace(middle, mirrored=True))


@pytest.mark.parametrize("moves", [True, False])
def test_a_field_that_follows_the_image_turns_with_it(moves: bool) -> None:
    found = mirror_test(*mirrored_pair(moves), resampling=QUICK).intervals
    # Around column 20, the middle of 41: the mirror image of a bell is the bell of the mirror image, but for float32.
    zero, one = ("turned", "kept") if moves else ("kept", "turned")
    assert found[zero].value < 1e-6
    assert found[one].value > 0.05
    assert found["turning"].value == pytest.approx(1.0 if moves else 0.0, abs=1e-9)
    assert found["turning"].low <= found["turning"].value <= found["turning"].high


def test_mirror_test_needs_counterparts() -> None:
    one, two = mirrored_pair(moves=True)
    other = replace(two, provenance=replace(two.provenance, layer="another"))
    with pytest.raises(erf.InputError, match="differ in layer layer and another"):
        mirror_test(one, other)
    with pytest.raises(erf.InputError, match="in this order"):
        mirror_test(two, one)
    fewer = replace(two, images=two.images[:-1])
    with pytest.raises(erf.InputError, match="the same images"):
        mirror_test(one, fewer)


@pytest.mark.parametrize(
    ("p", "words"),
    [(0.0, "< 0.001"), (0.00099, "< 0.001"), (0.001, "0.001"), (0.0014, "0.001"), (0.0996, "0.100"), (0.4, "0.40")],
)
def test_p_values_are_rounded(p: float, words: str) -> None:
    assert format_p(p) == words


def test_too_few_deals_are_told(pair: list[ERF]) -> None:
    """Three patients with one side each of two, in all: no p below a third is possible."""
    few = replace(
        pair[0],
        images=tuple(
            replace(image, patient_id=f"p{min(row, 1) if image.laterality == 'left' else 2}")
            for row, image in enumerate(pair[0].images)
        ),
    )
    table = tabulate([few], pick_measures(("lean",))[0], resampling=QUICK)
    assert any("sides can be exchanged in 3 ways only, and the smallest p is 0.33" in note for note in table.notes)
    assert table.entries[0]["lean"].side_p >= 1 / 3


def with_spacing(erf: ERF, spacing: float) -> ERF:
    return replace(erf, images=tuple(replace(image, pixel_spacing=spacing) for image in erf.images))


def test_millimetres_of_different_spacings_are_not_subtracted(pair: list[ERF]) -> None:
    """Values are in the millimetres of each, and a difference of pixels is none of millimetres."""
    (measure,) = pick_measures(("r50",))[0]
    fine, coarse, unknown = (
        with_spacing(erf, mm) for erf, mm in zip([*pair, pair[1]], (0.1, 0.2, np.nan), strict=True)
    )
    table = tabulate([fine, coarse], [measure], resampling=QUICK, allow_different=True)
    _, ((_, _, unit, *cells),) = value_rows(table, millimetres=True)
    assert unit == "mm"
    for cell, entries, spacing in zip(cells, table.entries, (0.1, 0.2), strict=True):
        assert cell.startswith(format_interval(entries["r50"].interval, spacing))
    assert difference_rows(table, millimetres=True)[1][0][-1] == "other spacing"
    for order in ([fine, unknown], [unknown, fine]):
        table = tabulate(order, [measure], resampling=QUICK, allow_different=True)
        assert value_rows(table, millimetres=True) == value_rows(table)
        assert difference_rows(table, millimetres=True) == difference_rows(table)


def test_nothing_is_significant_where_nothing_can_be_measured(pair: list[ERF]) -> None:
    seen = observe(pair[0])
    zero = replace(
        seen, **{name: np.zeros_like(getattr(seen, name)) for name in ("small", "across_rows", "across_columns")}
    )
    found = left_right_tests(zero, pick_measures(("lean", "left_right_tv"))[0], QUICK)
    assert np.isnan(list(found.values())).all()


def test_equal_titles_are_told_apart(pair: list[ERF]) -> None:
    one = pair[0]
    trained = replace(one, provenance=replace(one.provenance, weights="w.pt"))
    assert labels_of([one, trained]) == (
        f"{one.provenance.title} (untrained, seed 0)",
        f"{one.provenance.title} (weights w.pt)",
    )
    assert len(set(labels_of([one, one, trained]))) == 3
    assert labels_of([one]) == (one.provenance.title,)
