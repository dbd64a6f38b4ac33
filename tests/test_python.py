"""The library as it is called from Python: any source of networks and images, results that show and convert themselves."""

import os
import re
import signal
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
import xarray
from torch import nn

import erf
from erf.building import build_network
from erf.engine import compute_layers
from erf.errors import ImageWarning, OutputExistsError, UnfinishedRunError
from erf.models import create_model
from erf.plotting.saving import Figure

SIZE = (96, 64)
WRONG: Any = 3
WRONG_SIZE: Any = (64, 64, 3)
SMALL: dict[str, Any] = {"n": 4, "size": SIZE, "device": "cpu", "progress": False}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 7, padding=3), nn.ReLU(), nn.Conv2d(4, 2, 7, padding=3))


@pytest.fixture(scope="module")
def result() -> erf.ERF:
    return erf.compute(network(), n=12, size=SIZE, layer="2", device="cpu", progress=False)


def assert_same_maps(one: erf.ERF, other: erf.ERF) -> None:
    assert list(one.subsets) == list(other.subsets)
    for subset in one.subsets:
        np.testing.assert_array_equal(one[subset].mean, other[subset].mean)
        np.testing.assert_array_equal(one[subset].variance, other[subset].variance)


def test_a_registered_name_is_the_network_of_the_command_line_with_its_weights() -> None:
    named = erf.compute("gmic", **SMALL)
    assert named.provenance.weights_text == "shipped weights, trained on phantoms"
    assert named.provenance.layer == "final"
    built = build_network("gmic", size=SIZE)
    images = erf.load_images(n=4, size=SIZE)
    (expected,) = compute_layers(built.model, images, ["final"], erf.Settings(device="cpu"))
    assert_same_maps(named, expected)
    assert named.provenance.source == "phantom"


def test_every_source_of_a_network_gives_the_same() -> None:
    module = create_model("gmic", size=SIZE)
    sources = (module, lambda: module, build_network(module, size=SIZE))
    one, *others = (erf.compute(source, layer="final", **SMALL) for source in sources)
    for other in others:
        assert_same_maps(one, other)
    assert one.provenance.weights_text == "its own weights"
    assert one.provenance.weights_sha256


def test_every_source_of_images_gives_the_same(tmp_path: Path) -> None:
    arrays = list(np.random.default_rng(0).integers(0, 60000, (4, 1, *SIZE), np.uint16))
    for index, array in enumerate(arrays):
        np.save(tmp_path / f"{index}.npy", array)
    given: dict[str, Any] = {"layer": "2", "device": "cpu", "normalisation": "standardise", "progress": False}
    in_memory = [
        erf.compute(network(), arrays, **given),
        erf.compute(network(), np.stack(arrays), **given),
        erf.compute(network(), torch.from_numpy(np.stack(arrays).astype(np.float32)), **given),
    ]
    for other in in_memory[1:]:
        np.testing.assert_allclose(in_memory[0]["all"].mean, other["all"].mean, rtol=1e-5)
    from_folder = erf.compute(network(), tmp_path, size=SIZE, n=4, **given)
    np.testing.assert_allclose(in_memory[0]["all"].mean, from_folder["all"].mean, rtol=1e-5)
    assert from_folder.provenance.source == str(tmp_path)


def test_a_result_shows_itself(result: erf.ERF) -> None:
    lines = str(result).splitlines()
    assert lines[0] == "ERF"
    assert [line.split("  ")[1] for line in lines[1:]] == [
        "network", "unit", "images", "theoretical field", "centroid", "size",
    ]  # fmt: skip
    assert len({re.match(r" +[a-z ]+?  +", line).end() for line in lines[1:]}) == 1  # type: ignore[union-attr]
    assert "12 (left 6, right 6)" in lines[3]
    page = result._repr_html_()
    assert page.count("<img") == 1
    assert "data:image/png;base64,iVBOR" in page
    assert str(result.measure("r50")) in page


def test_names_in_a_summary_are_escaped(result: erf.ERF) -> None:
    from dataclasses import replace

    evil = replace(result, provenance=replace(result.provenance, model="<script>\x1b[31m"))
    assert "<script>" not in evil._repr_html_()
    assert "\x1b" not in str(evil)


def test_a_measure_is_that_of_a_table_and_formats_itself(result: erf.ERF) -> None:
    found = result.measure("r50")
    table = erf.compare(result, measures=["r50", "fwhm_x"])
    assert table["r50"] == {result.provenance.title: found}
    assert found.low < found.value < found.high
    assert re.fullmatch(r"[\d.]+ px \[[\d.]+, [\d.]+\]", f"{found}")
    assert f"{found:.1f}" == f"{found.value:.1f}"
    assert float(found) == found.value
    per_cent = result.measure("variability")
    assert (per_cent.unit, 0 < per_cent.value <= 100) == ("%", True)
    left = result.measure("r50", subset="left")
    assert left == erf.measure(result, "r50", subset="left") != found


def test_a_subset_gives_its_maps(result: erf.ERF) -> None:
    assert result["left"] is not result["right"]
    assert result["left", "abs"].mean is result["left"].mean
    assert result["left"].curve("x").shape == (SIZE[1],)
    assert result["left"].curve("y").shape == (SIZE[0],)
    with pytest.raises(erf.InputError, match="axis 'z' not known"):
        result["left"].curve("z")


def test_figures_show_themselves(result: erf.ERF) -> None:
    import plotly.graph_objects

    figure = result.plot(subsets=["left"])
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert isinstance(result.plot(interactive=True), plotly.graph_objects.Figure)


def test_a_comparison_shows_and_converts_itself(result: erf.ERF) -> None:
    other = erf.compute(network(), n=12, size=SIZE, layer="0", device="cpu", progress=False)
    table = erf.compare(result, other, labels=["<b>two", "one"], allow_different=True)
    text = str(table)
    assert "one − <b>two" in text
    assert str(table["r50"]["one"]).split()[0] in text
    assert "<b>two" not in table._repr_html_()
    frame = table.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert len(frame) == 2 * len(table.measures)
    values = frame[(frame.label == "one") & (frame.measure == "r50")]["value"]
    assert values.item() == table["r50"]["one"].value
    assert table.to_csv().count("\n") == len(frame) + 1
    assert table.to_latex().startswith(r"\begin{tabular}")
    with pytest.raises(erf.InputError, match="no measure 'r51' in this table"):
        table["r51"]


def test_xarray_has_the_maps_with_coordinates(result: erf.ERF) -> None:
    tree = result.to_xarray()
    assert isinstance(tree, xarray.DataTree)
    for subset in result.subsets:
        data = tree[subset]
        np.testing.assert_array_equal(data["mean"].sel(definition="abs"), result[subset].mean)
        np.testing.assert_array_equal(data["across_rows"].sel(definition="abs"), result[subset].across_rows)
        assert data.attrs["count"] == result.count(subset)
    assert tree["all"]["mean"].dims == ("definition", "y", "x")
    assert tree["all"]["x"].attrs["units"] == "px"
    assert tree.attrs["layer"] == "2"


def test_pandas_has_the_images(result: erf.ERF) -> None:
    frame = result.to_pandas()
    assert frame.groupby("laterality").size().to_dict() == {"left": 6, "right": 6}
    assert list(frame["id"]) == [image.id for image in result.images]


def test_a_missing_library_is_named(result: erf.ERF, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "xarray", None)
    with pytest.raises(erf.InputError, match=r"xarray is not installed .*pip install 'erf-toolkit\[frames\]'"):
        result.to_xarray()


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    seen: list[Any] = []

    def interrupt(stage: str, done: int, total: int) -> None:
        seen.append(done)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGINT)

    options: dict[str, Any] = {"n": 8, "size": SIZE, "layer": "2", "device": "cpu", "batch_size": 1, "output": path}
    with pytest.raises(erf.InterruptedRunError):
        erf.compute(network(), progress=interrupt, **options)
    assert not path.exists()
    with pytest.raises(UnfinishedRunError):
        erf.compute(network(), progress=False, **options)
    with pytest.raises(erf.CheckpointError, match="of another run"):
        erf.compute(network(), progress=False, resume=True, **options | {"layer": "0"})
    seen.clear()
    found = erf.compute(
        network(), progress=lambda stage, done, total: seen.append((stage, done)), resume=True, **options
    )
    assert sum(stage == "images" for stage, _ in seen) < 8
    whole = erf.compute(
        network(), progress=False, **{name: value for name, value in options.items() if name != "output"}
    )
    assert_same_maps(found, whole)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]


def test_a_finished_run_is_loaded_and_another_one_refused(tmp_path: Path) -> None:
    options = SMALL | {"layer": "2", "output": tmp_path / "a.h5"}
    first = erf.compute(network(), **options)
    again = erf.compute(network(), resume=True, **options)
    assert again.provenance.created == first.provenance.created
    with pytest.raises(OutputExistsError):
        erf.compute(network(), **options)
    with pytest.raises(OutputExistsError, match="of another run"):
        erf.compute(network(), resume=True, **options | {"image_seed": 1})
    with pytest.raises(OutputExistsError, match="of another run"):
        erf.compute(network(), resume=True, **options | {"normalisation": "none"})
    other = erf.compute(network(), overwrite=True, **options | {"image_seed": 1})
    assert other.provenance.image_seed == 1


def test_a_finished_run_over_other_contents_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays, others = (rng.standard_normal((2, 1, *SIZE)) for _ in range(2))
    options: dict[str, Any] = {"layer": "2", "device": "cpu", "progress": False, "output": tmp_path / "a.h5"}
    erf.compute(network(), arrays, **options)
    erf.compute(network(), arrays, resume=True, **options)
    with pytest.raises(OutputExistsError, match="of another run"):
        erf.compute(network(), others, resume=True, **options)
    folder = tmp_path / "images"
    folder.mkdir()
    np.save(folder / "0.npy", arrays[0])
    options |= {"output": tmp_path / "b.h5", "size": SIZE, "n": 1}
    mean = np.array(erf.compute(network(), folder, **options)["all"].mean)
    np.save(folder / "0.npy", others[0])
    later = (tmp_path / "b.h5").stat().st_mtime + 10
    os.utime(folder / "0.npy", (later, later))
    with pytest.raises(OutputExistsError, match="content of"):
        erf.compute(network(), folder, resume=True, **options)
    assert not np.array_equal(erf.compute(network(), folder, overwrite=True, **options)["all"].mean, mean)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: erf.compute("gmc", **SMALL), "unknown model 'gmc'; did you mean gmic"),
        (lambda: erf.compute(WRONG, **SMALL), "a model of type int; expected a name, a module, or a function"),
        (lambda: erf.compute(lambda: WRONG, **SMALL), "a model of type int"),
        (lambda: erf.compute("gmic", WRONG, **SMALL), "images of type int; expected a folder"),
        (
            lambda: erf.compute("gmic", np.zeros((4, 8, 8)), progress=False),
            r"expected one or more of a single shape \(C,",
        ),
        (lambda: erf.compute("gmic", output="a.png", **SMALL), "expected one of .h5, .hdf5"),
        (
            lambda: erf.compute("gmic", **SMALL | {"size": "64x64"}),
            "size '64x64'; expected .height, width. in pixels, or",
        ),
        (lambda: erf.compute("gmic", **SMALL | {"until": "2 %"}), "until '2 %'; expected a share such as 0.02, or"),
        (lambda: erf.compute("gmic", **SMALL, until=2), "half width 2 of the value; expected a share between 0 and 1"),
        (lambda: erf.load_images(n=1, size=WRONG_SIZE), "size .64, 64, 3.; expected"),
        (erf.compare, "nothing to compare"),
        (lambda: erf.receptive_field("gmic", "nothing", size=SIZE), "unknown layer 'nothing'"),
        (lambda: erf.layers("gmic", "nothing*", size=SIZE), "nothing"),
    ],
)
def test_a_wrong_argument_gets_one_line(call: object, words: str) -> None:
    with pytest.raises(erf.ErfError, match=words) as found:
        call()  # type: ignore[operator]
    assert "\n" not in str(found.value)


def test_an_unknown_measure_is_answered_with_near_names(result: erf.ERF) -> None:
    with pytest.raises(erf.InputError, match=r"no measure 'r5'; did you mean r9?5"):
        result.measure("r5")


def test_layers_fields_and_checks_show_themselves() -> None:
    table = erf.layers("gmic", size=SIZE, levels=1)
    assert table.names[0] == "stem"
    assert len(table) == len(table.names) == str(table).count("\n") - 2
    assert [point.name for point in table] == table.names
    field = erf.receptive_field("gmic", size=SIZE)
    assert field.holds
    assert max(field.size) == 1747
    report = erf.check("gmic", size=SIZE)
    assert report.passed
    for shown in (table, field, report):
        assert shown._repr_html_().startswith("<table>")
        assert repr(shown) == str(shown)


def test_a_single_name_need_not_be_in_a_list(result: erf.ERF) -> None:
    assert len(result.plot(subsets="left").axes) == len(result.plot(subsets=["left"]).axes)
    table = erf.compare(result, measures="r50", labels="one")
    assert (table.labels, [measure.name for measure in table.measures]) == (("one",), ["r50"])
    assert erf.compute(network(), layer="2", definitions="square", **SMALL).provenance.definitions == ("square",)


def test_a_module_keeps_its_mode() -> None:
    model = network().train()
    model[1].eval()
    images = torch.rand(4, 1, *SIZE)
    for call in (
        lambda: erf.compute(model, images, layer="2", device="cpu", progress=False),
        lambda: erf.compute(model, layer="2", **SMALL),
        lambda: erf.layers(model, size=SIZE),
        lambda: erf.receptive_field(model, "2", size=SIZE),
        lambda: erf.check(model, "2", size=SIZE),
    ):
        call()
        assert [module.training for module in model.modules()] == [True, True, False, True]
        assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("change", ["structure", "code", "parameters"])
def test_another_network_does_not_go_on(tmp_path: Path, change: str) -> None:
    options = SMALL | {"layer": "2", "output": tmp_path / "a.h5"}
    erf.compute(network(), **options)
    other = network()
    if change == "structure":
        other[1] = nn.Softplus()
    elif change == "code":
        other[1] = type("ReLU", (nn.ReLU,), {"forward": lambda self, x: x.sin()})()
    else:
        next(other.parameters()).data += 1
    with pytest.raises(OutputExistsError, match="of another run"):
        erf.compute(other, resume=True, **options)


def test_a_network_that_is_built_takes_no_options_and_keeps_its_seed() -> None:
    built = build_network("gmic", weights="none", seed=3, size=SIZE)
    found = erf.compute(built, n=4, device="cpu", progress=False)
    assert found.provenance.seed == 3
    for given in ({"size": (32, 32)}, {"weights": "shipped"}, {"seed": 5}, {"model_args": {"a": 1}}):
        with pytest.raises(erf.InputError, match=f"{next(iter(given))} of a network that is built"):
            erf.compute(built, n=4, device="cpu", progress=False, **given)
    with pytest.raises(erf.InputError, match="'a' for a module that is built"):
        erf.compute(network(), model_args={"a": 1}, **SMALL)
    with pytest.raises(erf.InputError, match="images of 96x64 and a size of 32x32"):
        erf.compute(network(), torch.rand(2, 1, *SIZE), size=(32, 32), progress=False)


def test_arrays_for_a_named_network_are_normalised_as_it_expects() -> None:
    arrays = np.random.default_rng(0).integers(0, 60000, (2, 1, *SIZE), np.uint16)
    assert erf.compute("gmic", arrays, device="cpu", progress=False).provenance.normalisation == "standardise"
    assert erf.compute(network(), arrays, layer="2", progress=False).provenance.normalisation == "none"


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (np.array([[[[None] * 4] * 4]], object), "arrays of type object"),
        (np.ones((1, 1, 8, 8), complex), "arrays of type complex128"),
        (np.full((1, 1, 8, 8), 1e39), "beyond the range of float32"),
    ],
)
def test_arrays_that_are_no_images(arrays: np.ndarray, words: str) -> None:
    with pytest.raises(erf.ErfError, match=words):
        erf.compute(network(), arrays, layer="2", device="cpu", strict=True, progress=False)


def test_half_precision_tensors_are_images() -> None:
    images = torch.rand(2, 1, *SIZE)
    one, two = (
        erf.compute(network(), each, layer="2", device="cpu", progress=False)
        for each in (images.bfloat16().float(), images.bfloat16())
    )
    assert_same_maps(one, two)


def test_a_unit_that_sees_padding_only_has_an_empty_field() -> None:
    model = nn.Sequential(nn.ZeroPad2d((3, 3, 0, 0)), nn.Conv2d(1, 2, 2), nn.Softplus())
    images = torch.rand(2, 1, 24, 24)
    with pytest.warns(ImageWarning, match="the gradient is zero everywhere"):
        found = erf.compute(model, images, layer="2", unit=(0, 0), device="cpu", progress=False)
    assert not found["all"].mean.any()
    assert "none: the maps are zero everywhere" in str(found)


def test_columns_of_a_manifest_do_not_replace_fields(result: erf.ERF) -> None:
    from dataclasses import replace

    images = tuple(replace(image, columns={"status": "site0", "age": "50"}) for image in result.images)
    frame = replace(result, images=images).to_pandas()
    assert set(frame["status"]) == {"ok"}
    assert set(frame["manifest.status"]) == {"site0"}
    assert set(frame["age"]) == {"50"}


def test_files_can_be_compared_and_drawn_by_their_paths(result: erf.ERF, tmp_path: Path) -> None:
    result.save(tmp_path / "a.h5")
    assert erf.compare(tmp_path / "a.h5", measures="r50")["r50"] == erf.compare(result, measures="r50")["r50"]
    assert isinstance(erf.plot(str(tmp_path / "a.h5"), subsets="all"), Figure)
    wrong: Any = 3
    with pytest.raises(erf.InputError, match="found a int, expected an ERF or the path"):
        erf.compare(wrong)


def test_the_options_of_a_run_are_those_of_its_settings() -> None:
    options = signature(erf.compute).parameters
    differing = {one.name for one in fields(erf.Settings) if options[one.name].default != one.default}
    assert differing == {"arguments", "seed"}  # of the network, by default


def test_a_check_takes_a_network_that_is_built_with_any_seed() -> None:
    built = erf.build_network(network(), size=SIZE, seed=3)
    assert erf.check(built, "2").passed
    assert erf.receptive_field(built, "2").holds


def test_a_number_is_a_square_and_a_share_is_a_stopping_rule() -> None:
    given: dict[str, Any] = {"layer": "2", "device": "cpu", "progress": False}
    found = erf.compute(network(), n=40, size=48, until=0.9, **given)
    assert found.provenance.input_shape == (1, 48, 48)
    assert found.count() < 40
    assert erf.load_images(n=1, size=48).shape == (1, 48, 48)
    side: Any = np.int64(48)
    assert erf.layers(network(), size=side).network.size == (48, 48)


def test_small_images_are_told_once(tmp_path: Path) -> None:
    sizes = {"0_L": (40, 30), "1_R": (47, 31), "2_L": (47, 32), "3_R": (48, 31)}
    for name, size in sizes.items():
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).random((1, *size)))
    words = "2 of 4 images, first .*_[LR].npy: less than half as high and as wide as the input of 96x64 pixels"
    with pytest.warns(ImageWarning, match=words) as caught:
        found = erf.compute(network(), tmp_path, layer="2", **SMALL)
    assert len(caught) == 1
    small = {record.path: "less than half" in record.message for record in found.images}
    assert {Path(path).name: is_small for path, is_small in small.items()} == {
        "0_L.npy": True, "1_R.npy": True, "2_L.npy": False, "3_R.npy": False,
    }  # fmt: skip
    assert not erf.compute(network(), tmp_path, layer="2", fit="letterbox", **SMALL).remarks


def test_objects_show_themselves_in_a_few_lines(result: erf.ERF) -> None:
    network = build_network("gmic", size=SIZE)
    images = erf.load_images("phantom", n=3, size=SIZE)
    shown = {
        "Statistics over": result["left"],
        f"Provenance of {result.provenance.title}": result.provenance,
        "ImageSet of 3 images (2 left, 1 right), 1x96x64": images,
        "Network gmic: input 1x96x64": network,
        "Measure r50 [px], size: radius": erf.MEASURES["r50"],
    }
    for words, one in shown.items():
        assert repr(one).startswith(words)
        assert repr(one).count("\n") < 3
        assert max(map(len, repr(one).splitlines())) < 200
        assert "array" not in repr(one)
