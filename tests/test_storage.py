"""ERF files: everything comes back, nothing is half written, strange files are refused by name."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xarray
from torch import nn

import erf
from erf.accumulation.merging import merge
from erf.measures import MEASURES, observe
from erf.results import ERF, Profile
from erf.storage.guarded import read
from tests.conftest import SIDES, small_network

EXPECTED_ATTRIBUTES = {
    "format", "format_version", "model", "weights", "weights_sha256", "layer", "unit", "unit_center", "input_shape",
    "feature_shape", "definitions", "normalisation", "seed", "command", "versions", "created",
}  # fmt: skip


def assert_equal(one: ERF, other: ERF) -> None:
    for item in fields(one.provenance):
        assert getattr(one.provenance, item.name) == getattr(other.provenance, item.name), item.name
    for record, again in zip(one.images, other.images, strict=True):
        for item in fields(record):
            np.testing.assert_equal(getattr(record, item.name), getattr(again, item.name))
    assert set(one.subsets) == set(other.subsets)
    for subset, definitions in one.subsets.items():
        assert list(definitions) == list(other.subsets[subset])
        for definition, statistics in definitions.items():
            for item in fields(statistics):
                np.testing.assert_array_equal(
                    getattr(statistics, item.name), getattr(other.statistics(subset, definition), item.name)
                )
    for definition, profile in one.profiles.items():
        for item in fields(profile):
            np.testing.assert_array_equal(getattr(profile, item.name), getattr(other.profiles[definition], item.name))


def test_everything_comes_back(small_erf: ERF, tmp_path: Path) -> None:
    erf.save(small_erf, tmp_path / "a.h5")
    assert_equal(small_erf, erf.load(tmp_path / "a.h5"))


def test_a_run_into_a_file_equals_a_run_in_memory(arrays: list[np.ndarray], small_erf: ERF, tmp_path: Path) -> None:
    with erf.FileSink(tmp_path / "a.h5") as sink:
        written = erf.compute(small_network(), erf.from_arrays(arrays, SIDES), layer="5", sink=sink)
    np.testing.assert_array_equal(written.statistics("left").mean, small_erf.statistics("left").mean)
    assert [record.id for record in written.images] == [record.id for record in small_erf.images]
    assert os.listdir(tmp_path) == ["a.h5"]


def test_failed_images_keep_their_row(arrays: list[np.ndarray], tmp_path: Path) -> None:
    arrays[1][:] = np.nan
    result = erf.compute(small_network(), erf.from_arrays(arrays, SIDES), layer="5")
    erf.save(result, tmp_path / "a.h5")
    assert_equal(result, erf.load(tmp_path / "a.h5"))


def test_layout_as_documented(small_erf: ERF, tmp_path: Path) -> None:
    erf.save(small_erf, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert set(file.attrs) >= EXPECTED_ATTRIBUTES
        assert file.attrs["format"].decode() == "erf-toolkit"
        group = file["subsets/left/abs"]
        assert group.attrs["count"] == 3
        assert {name: (d.shape, d.dtype.name) for name, d in group.items()} == {
            "mean": ((40, 32), "float32"),
            "variance": ((40, 32), "float32"),
            "across_rows": ((32,), "float64"),
            "across_columns": ((40,), "float64"),
        }
        assert group["mean"].compression == "gzip"
        assert group["mean"].shuffle
        assert file["images/abs/across_rows"].shape == (6, 32)
        assert file["images/laterality"].asstr()[:].tolist().count("left") == 3
        without_scale = []
        file.visititems(
            lambda name, item: (
                without_scale.append(name)
                if isinstance(item, h5py.Dataset) and not item.is_scale and not all(len(d) for d in item.dims)
                else None
            )
        )
        assert not without_scale


def test_xarray_reads_it(small_erf: ERF, tmp_path: Path) -> None:
    erf.save(small_erf, tmp_path / "a.h5")
    with xarray.open_datatree(tmp_path / "a.h5", engine="h5netcdf") as tree:
        mean = tree["subsets/left/abs/mean"]
        assert mean.dims == ("y", "x")
        np.testing.assert_array_equal(mean.values, small_erf.statistics("left").mean)
        np.testing.assert_array_equal(mean.coords["x"].values, np.arange(32))
        assert tree["images/abs/small"].dims == ("image", "small_y", "small_x")
        assert tree["images/thumbnail"].dims == ("image", "thumbnail_y", "thumbnail_x")
        rings = tree["images/abs/rings"]
        assert rings.dims == ("image", "ring")
        np.testing.assert_array_equal(rings.coords["ring"].values, np.arange(rings.shape[1]) / 2)
        assert tree["images/small_height"].sum() == 40
        assert tree.attrs["model"] == "Sequential"


def test_an_existing_file_is_refused_and_left_alone(small_erf: ERF, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_text("precious")
    with pytest.raises(erf.OutputError, match=r"a\.h5 exists"):
        erf.save(small_erf, path)
    assert path.read_text() == "precious"
    erf.save(small_erf, path, overwrite=True)
    assert erf.load(path).count() == 6


def test_an_unwritable_folder_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(erf.OutputError, match=r"a.h5 cannot be written \(No such file or directory\)"):
        erf.FileSink(tmp_path / "nowhere" / "a.h5")


def test_an_error_on_the_way_leaves_the_old_file(small_erf: ERF, tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_text("precious")

    def fail_halfway() -> None:
        with erf.FileSink(path, overwrite=True) as sink:
            sink.begin(small_erf.provenance)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert path.read_text() == "precious"
    assert os.listdir(tmp_path) == ["a.h5"]


def test_the_new_file_takes_its_name_in_one_step(
    small_erf: ERF, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.h5"
    path.write_text("precious")

    def fail(*paths: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("erf.storage.writer.os.replace", fail)
    with pytest.raises(erf.OutputError, match=r"a.h5 cannot be written \(No space left on device\); free some space"):
        erf.save(small_erf, path, overwrite=True)
    assert path.read_text() == "precious"
    assert os.listdir(tmp_path) == ["a.h5"]


KILLED = """
import sys, time, erf
from tests.conftest import small_network
import numpy as np
images = erf.from_arrays([np.random.default_rng(i).standard_normal((1, 40, 32)) for i in range(10)])
def slow(stage, done, total):
    print(done, flush=True)
    time.sleep(0.2)
with erf.FileSink(sys.argv[1], overwrite=True) as sink:
    erf.compute(small_network(), images, layer="5", sink=sink, progress=slow)
"""


def test_a_killed_run_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_text("precious")
    root = Path(__file__).parent.parent
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)],
        cwd=root,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": "."},
    )
    assert process.stdout is not None
    with process.stdout:
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait(600)
    assert path.read_text() == "precious"


def write_other(path: Path, kind: str, good: ERF) -> None:
    if kind == "text":
        path.write_text("not hdf5")
    elif kind == "other format":
        with h5py.File(path, "w") as file:
            file.attrs["format"] = "something"
    elif kind != "missing":
        erf.save(good, path)
    if kind == "newer":
        with h5py.File(path, "a") as file:
            file.attrs["format_version"] = 99
    if kind == "truncated":
        os.truncate(path, path.stat().st_size // 2)
    if kind == "attribute lost":
        with h5py.File(path, "a") as file:
            del file.attrs["layer"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such file"),
        ("text", "cannot be read as an ERF file"),
        ("other format", "found HDF5 of format 'something', expected 'erf-toolkit'"),
        ("newer", "found format version 99, this erf-toolkit reads up to 2; upgrade"),
        ("truncated", "may be damaged"),
        ("attribute lost", "may be damaged"),
    ],
)
def test_strange_files_are_refused_by_name(small_erf: ERF, tmp_path: Path, kind: str, message: str) -> None:
    path = tmp_path / "a.h5"
    write_other(path, kind, small_erf)
    with pytest.raises(erf.FormatError, match=f"a.h5: .*{message}"):
        erf.load(path)


def test_unknown_subsets_and_definitions_are_named(small_erf: ERF) -> None:
    with pytest.raises(erf.InputError, match="no subset 'both' in this ERF; it has"):
        small_erf.statistics("both")
    with pytest.raises(erf.InputError, match="no definition 'relu' in this ERF; it has abs"):
        small_erf.statistics("all", "relu")


def test_columns_and_odd_subset_names_survive(arrays: list[np.ndarray], tmp_path: Path) -> None:
    from erf.images import Image, ImageSet

    base = erf.from_arrays(arrays)
    images = tuple(
        Image(image.id, image.path, image.decode, columns={"site": "a/b", "note": json.dumps("ü")})
        for image in base.images
    )
    result = erf.compute(small_network(), ImageSet(images, base.framing), layer="5", subset_by=("site",))
    erf.save(result, tmp_path / "a.h5")
    again = erf.load(tmp_path / "a.h5")
    assert again.count("site=a/b") == 6
    assert_equal(result, again)


def test_a_file_from_before_an_attribute_existed_gets_its_default(small_erf: ERF, tmp_path: Path) -> None:
    erf.save(small_erf, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        for name in ("field_shift", "projections", "model_options"):
            del file.attrs[name]
    assert_equal(small_erf, erf.load(tmp_path / "a.h5"))
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file.attrs["unit_center"]
    with pytest.raises(erf.FormatError, match="unit_center"):
        erf.load(tmp_path / "a.h5")


def wide_erf(layer: str = "5") -> ERF:
    """Of images whose blocks are of up to 3 pixels."""
    rng = np.random.default_rng(5)
    images = erf.from_arrays([rng.random((1, 300, 261)) for _ in range(4)], ["left", "right"] * 2)
    return erf.compute(small_network(), images, layer=layer)


def as_version_1(result: ERF, path: Path) -> ERF:
    """A file as it was written before blocks were finer at the unit, loaded."""
    profiles = {
        name: Profile(
            kept.across_rows, kept.across_columns, result.provenance.grid.evened(kept.small).astype("f4"),
            *[np.empty((len(kept.small), 0), "f4")] * 3,
        )
        for name, kept in result.profiles.items()
    }  # fmt: skip
    origin = replace(result.provenance, finest_block=0)
    erf.save(replace(result, provenance=origin, profiles=profiles), path)
    with h5py.File(path, "r+") as file:
        assert set(file["images/abs"]) == {"across_rows", "across_columns", "small"}
        file.attrs["format_version"] = 1
        del file.attrs["finest_block"]
    return erf.load(path)


def test_a_file_of_version_1_is_measured_as_before(tmp_path: Path) -> None:
    result = wide_erf()
    old = as_version_1(result, tmp_path / "old.h5")
    assert old.provenance.finest_block == 0
    seen, fine = observe(old), observe(result)
    for name, measure in MEASURES.items():
        if measure.part == "curves":
            np.testing.assert_array_equal(measure.of(seen.all()), measure.of(fine.all()), err_msg=name)
    # The radius by rings of a quarter of a block, among whose 8 x 8 points the mass of a block is shared.
    small, block = old.profiles["abs"].small.astype(np.float64).mean(0), old.provenance.small_block
    assert block == 3
    points = (np.arange(8) + 0.5) / 8
    away = [
        np.abs((np.arange(0, length, block)[:, None] - 0.5 + np.minimum(block, length - np.arange(0, length, block))[:, None] * points).ravel() - center)
        for length, center in zip((300, 261), old.provenance.unit_center, strict=True)
    ]  # fmt: skip
    rings = (np.hypot(away[0][:, None], away[1]) / 0.75).astype(int)
    mass = np.bincount(rings.ravel(), np.kron(small, np.full((8, 8), 1 / 64)).ravel())
    held = np.concatenate([[0], np.cumsum(mass)]) / mass.sum()
    r90 = np.interp(0.9, held, 0.75 * np.arange(len(held)))
    assert float(MEASURES["r90"].compute(seen.all())) == pytest.approx(r90, rel=1e-6)


def test_what_a_file_of_version_1_does_not_resolve_is_withheld(tmp_path: Path) -> None:
    result = wide_erf(layer="0")
    old = as_version_1(result, tmp_path / "old.h5")
    table = erf.compare(old, measures=("r50", "rms_radius"))
    assert observe(old).extent < 3 * old.provenance.small_block
    assert np.isnan(table.entries[0]["r50"].interval.value)
    assert np.isfinite(table.entries[0]["rms_radius"].interval.value)
    assert any("r50 withheld" in note for note in table.notes)
    table = erf.compare(result, measures=("r50", "rms_radius"))
    assert np.isfinite(table.entries[0]["r50"].interval.value)
    assert not any("withheld" in note for note in table.notes)
    with pytest.raises(erf.InputError, match=r"finest blocks kept .* 1 / 0; compare like with like"):
        erf.compare(result, old, measures=("variability",))


def test_a_file_of_version_1_can_be_saved_merged_and_drawn(tmp_path: Path) -> None:
    result = wide_erf()
    old = as_version_1(result, tmp_path / "old.h5")
    erf.save(old, tmp_path / "again.h5")
    assert_equal(old, erf.load(tmp_path / "again.h5"))
    np.testing.assert_array_equal(merge([old]).profiles["abs"].small, old.profiles["abs"].small)
    for layout in ("overview", "contours", "radial"):
        erf.plot([old], tmp_path / f"{layout}.png", layout=layout, subsets=["all"])
    with pytest.raises(erf.InputError, match="finest block"):
        merge([old, replace(result, images=())])


def test_maps_are_read_only_when_used(small_erf: erf.ERF, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves and centroid read no map, the mean reads no variance, and each map is read once."""
    names: list[str] = []

    def recorded(group: h5py.Group, name: str, expected: Any) -> Any:
        names.append(name)
        return read(group, name, expected)

    path = tmp_path / "stored.h5"
    erf.save(small_erf, path)
    monkeypatch.setattr("erf.storage.reader.read", recorded)
    expected, found = small_erf.statistics("left"), erf.load(path).statistics("left")
    assert found.centroid == expected.centroid
    assert not {"mean", "variance"} & set(names)
    np.testing.assert_array_equal(found.mean, expected.mean)
    assert "variance" not in names
    np.testing.assert_array_equal(found.variance, expected.variance)
    np.testing.assert_array_equal(replace(found, count=5).variance, expected.variance)
    assert names.count("mean") == names.count("variance") == 1


def test_maps_of_a_file_that_was_replaced_are_not_mixed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("one.h5", "two.h5"):
        images = erf.from_arrays([rng.standard_normal((1, 24, 16)).astype(np.float32) for _ in range(2)])
        erf.save(erf.compute(nn.Conv2d(1, 2, 5), images, layer="output", device="cpu"), tmp_path / name)
    statistics = erf.load(tmp_path / "one.h5").statistics()
    assert statistics.mean.any()
    os.replace(tmp_path / "two.h5", tmp_path / "one.h5")
    with pytest.raises(erf.FormatError, match="changed or replaced after it was loaded; load it again"):
        _ = statistics.variance
