"""Maps of other programs as ERFs."""

import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

import erf
from erf.accumulation.running import RunningMoments
from erf.cli import app
from erf.errors import FormatError, InputError
from erf.importing import arrays
from erf.importing.profiles import profile_of
from erf.results import PROFILE_ARRAYS
from erf.results.grid import Grid

OPENERF = Path(__file__).parent.parent / "docs" / "examples" / "data"


def gaussian(sigma: float = 3.0, size: tuple[int, int] = (41, 33), center: tuple[float, float] = (20, 16)) -> Any:
    y, x = np.ogrid[: size[0], : size[1]]
    return np.exp(-((y - center[0]) ** 2 + (x - center[1]) ** 2) / (2 * sigma**2))


@pytest.fixture
def stack() -> NDArray[np.float64]:
    """Maps of twelve images, of different widths."""
    return np.stack([gaussian(2 + number / 6) for number in range(12)])


@pytest.mark.parametrize("center", [(20.0, 16.0), (3.25, 30.5)])
def test_sums_of_a_map_are_those_of_a_run(center: tuple[float, float]) -> None:
    values = np.random.default_rng(0).random((70, 50))
    grid = Grid((70, 50), 4, center, finest=1)
    running = RunningMoments(["abs"], grid, torch.device("cpu"))
    wanted = running.add([torch.from_numpy(values[None])])["abs"]
    found = profile_of(values, grid)
    for name in PROFILE_ARRAYS:
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-5, atol=1e-4, err_msg=name)


def test_a_stack_has_variance_and_intervals(stack: NDArray[np.float64]) -> None:
    found = erf.import_map(stack, title="net")
    assert (found.count(), found.provenance.title) == (12, "net")
    np.testing.assert_allclose(found["all"].mean, stack.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found["all"].variance, stack.var(0, ddof=1), rtol=1e-9, atol=1e-15)
    r50 = found.measure("r50")
    assert r50.low < r50.value < r50.high


def test_a_single_map_has_no_interval_and_says_so() -> None:
    found = erf.import_map(gaussian())
    r50 = found.measure("r50")
    assert r50.value == pytest.approx(3 * np.sqrt(2 * np.log(2)), abs=0.25)
    assert np.isnan([r50.low, r50.high]).all()
    assert np.isnan(found["all"].variance).all()
    notes = erf.compare(found, found, labels=["one", "two"]).notes
    assert notes[0] == "imported without its images, and so without intervals: one, two"
    assert np.isnan(found.measure("tissue_excess").value)


def test_the_centre_is_given_or_assumed() -> None:
    values = gaussian()
    assumed, given = erf.import_map(values), erf.import_map(values, center=(20, 10))
    assert assumed.provenance.unit_center == (20.0, 16.0)
    assert assumed.provenance.imported["centre"] == "assumed in the middle"
    assert "assumed in the middle" in assumed.provenance.target
    assert given.provenance.imported["centre"] == "given"
    assert "assumed" not in given.provenance.target
    assert given.measure("r50").value > assumed.measure("r50").value + 1


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["<f8", ">f4", "<u2"])
def test_files_hold_any_order_and_type(tmp_path: Path, kind: str, order: Any) -> None:
    values = np.asarray((1000 * gaussian()).round(), kind, order=order)
    np.save(tmp_path / "map.npy", values)
    np.savez_compressed(tmp_path / "map.npz", one=values, other=np.zeros(3))
    from_npy = erf.import_map(tmp_path / "map.npy")
    from_npz = erf.import_map(tmp_path / "map.npz", array="one")
    for found in (from_npy, from_npz):
        np.testing.assert_array_equal(found["all"].mean, values)
    assert (from_npy.provenance.title, from_npz.provenance.title) == ("map", "one")


def test_a_saved_import_is_the_same(tmp_path: Path, stack: NDArray[np.float64]) -> None:
    found = erf.import_map(stack, title="net")
    erf.save(found, tmp_path / "x.h5")
    loaded = erf.load(tmp_path / "x.h5")
    assert loaded.provenance == found.provenance
    np.testing.assert_array_equal(loaded["all"].mean, found["all"].mean)
    assert loaded["all"].mean.dtype == np.float64
    assert dict(loaded.provenance.described())["layer"] == "not known"


def test_radial_mass_counts_pixels() -> None:
    values = np.random.default_rng(1).random((9, 7))
    found = erf.radial_mass(values, [0, 1, 2.5, 20], (4, 3))
    for radius, share in zip((0, 1, 2.5, 20), found, strict=True):
        inside = [values[y, x] for y in range(9) for x in range(7) if (y - 4) ** 2 + (x - 3) ** 2 <= radius**2]
        assert share == pytest.approx(sum(inside) / values.sum(), rel=1e-12)


def test_radial_masses_are_those_of_openerf() -> None:
    """Of the rounded copies; `scripts/check_openerf.py` compares the arrays themselves, to 1e-9."""
    theirs = json.loads((OPENERF / "openerf_radial_mass.json").read_text())
    assert len(theirs) == 10
    for name, facts in theirs.items():
        found = erf.import_map(OPENERF / "openerf.npz", array=name, center=tuple(facts["center_yx"]))
        masses = facts["radial_cumulative_mass"]
        ours = erf.radial_mass(found["all"].mean, list(map(float, masses)), found.provenance.unit_center)
        np.testing.assert_allclose(ours, list(masses.values()), rtol=1e-3, err_msg=name)


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "one axis": (lambda: np.ones(5), "shape 5"),
    "four axes": (lambda: np.ones((2, 3, 4, 4)), "shape 2 x 3 x 4 x 4"),
    "nothing": (lambda: np.ones((0, 4, 4)), "shape 0 x 4 x 4"),
    "complex": (lambda: np.ones((4, 4), complex), "type complex128"),
    "NaN": (lambda: np.full((4, 4), np.nan), "not finite"),
    "negative": (lambda: -np.ones((4, 4)), "negative values, down to -1"),
    "zero": (lambda: np.zeros((4, 4)), "every value is 0"),
    "tiny": (lambda: np.full((4, 4), 1e-50), "largest value of 1e-50"),
    "NaN in one": (lambda: np.stack([np.ones((4, 4)), np.full((4, 4), np.inf)]), "map 1: found values"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_array_that_is_no_map_is_one_line(name: str) -> None:
    make, words = BAD[name]
    with pytest.raises(erf.InputError, match=words) as error:
        erf.import_map(make())
    assert "\n" not in str(error.value)


def test_signed_maps_may_be_negative() -> None:
    assert erf.import_map(-gaussian(), definition="signed")["all"].mean.min() == -1
    with pytest.raises(erf.InputError, match="expected one of signed"):
        erf.import_map(gaussian(), definition="mean")
    with pytest.raises(erf.InputError, match="outside the map of 41x33"):
        erf.import_map(gaussian(), center=(50, 3))


class Bomb:
    def __reduce__(self) -> Any:
        raise AssertionError("was unpickled")


def npy_header(shape: str) -> bytes:
    text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def zipped(content: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", content)
    return held.getvalue()


def object_array() -> bytes:
    held = io.BytesIO()
    np.save(held, np.array([[{}]], object), allow_pickle=True)
    return held.getvalue()


HOSTILE = {
    "missing": (None, "no such file"),
    "empty": (b"", "neither .npy nor .npz"),
    "text": (b"1 2 3", "neither .npy nor .npz"),
    "pickle": (pickle.dumps([1, 2]), "neither .npy nor .npz"),
    "objects": (object_array(), "Python objects"),
    "objects in an archive": (zipped(object_array()), "Python objects"),
    "header only": (b"\x93NUMPY\x01\x00", "cannot be read"),
    "claims a terabyte": (npy_header("(1000000, 131072)"), "cannot be read"),
    "claims a terabyte in an archive": (zipped(npy_header("(1000000, 131072)")), "cannot be read"),
    "negative shape": (npy_header("(-1, 4)"), "cannot be read"),
    "broken archive": (b"PK\x03\x04 nothing", "cannot be read"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_no_array_is_one_line(tmp_path: Path, name: str) -> None:
    content, words = HOSTILE[name]
    if content is not None:
        (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(erf.FormatError, match=words) as error:
        erf.import_map(tmp_path / "x.npy")
    assert "\n" not in str(error.value)


def test_a_zip_bomb_is_refused_by_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "LARGEST_UNPACKED", 2**16)
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros((128, 128)))
    with pytest.raises(erf.FormatError, match="unpacked"):
        erf.import_map(tmp_path / "bomb.npz")


def test_an_archive_of_several_needs_a_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=gaussian(), b=gaussian())
    with pytest.raises(erf.InputError, match=r"2 arrays \(a, b\); name one of them with `array`"):
        erf.import_map(tmp_path / "x.npz")
    with pytest.raises(erf.InputError, match="no array 'c'; it has a, b"):
        erf.import_map(tmp_path / "x.npz", array="c")
    np.save(tmp_path / "x.npy", gaussian())
    with pytest.raises(erf.InputError, match="single array without a name"):
        erf.import_map(tmp_path / "x.npy", array="a")


def test_the_command_imports_shows_measures_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("one.npy", gaussian())
    np.save("two.npy", np.stack([gaussian(2 + number / 6) for number in range(12)]))
    run = CliRunner().invoke
    first = run(app, ["import", "one.npy", "--title", "Net"])
    assert first.exit_code == 0, first.output
    assert "y 20, x 16 px, assumed in the middle" in first.stdout
    assert "not known" in first.stdout
    second = run(app, ["import", "two.npy", "-o", "b.h5", "--center", "20,16"])
    assert "px, given" in second.stdout
    assert "of a single map" not in second.stdout
    for command in ("show one.h5", "compare one.h5 b.h5", "report one.h5 b.h5 --resamples 100", "plot one.h5 -o x.png"):
        result = run(app, command.split())
        assert result.exit_code == 0, result.output
    for options, words in ((["--center", "middle"], "expected 2 numbers"), (["--center", "nan,1"], "expected 2")):
        result = run(app, ["import", "one.npy", "-o", "c.h5", *options])
        assert (result.exit_code, words in result.output) == (2, True)


def test_an_anonymised_import_has_no_file_name() -> None:
    found = erf.anonymise(erf.import_map(OPENERF / "openerf.npz", array="cait_xxs24_224.fb_dist_in1k"))
    assert dict(found.provenance.imported) == {"centre": "assumed in the middle"}


def test_channels_last_are_no_stack() -> None:
    with pytest.raises(InputError, match="channels last"):
        erf.import_map(np.ones((20, 30, 3)))
    assert erf.import_map(np.ones((3, 20, 30))).count() == 3


def test_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "map.npy")
    with pytest.raises(FormatError, match="pipe"):
        erf.import_map(tmp_path / "map.npy")
