"""Files without names: nobody is named, and every number stays."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner, Result

import erf
from erf.cli import app
from erf.comparison import tabulate
from erf.measures import pick_measures
from erf.storage.privacy import Anonymity, Identifier, identifiers
from erf.storage.series import Moment, Series, load_series, save_series
from tests.conftest import SMALL_RUN

SALT = "a salt of the test"
NAMES = ("Doe^Jane", "19600101", "Roe^Ann", "secret-site", "years of age", "scan-of", "hospital")
RUN = [*SMALL_RUN, "--images", "hospital/m.csv", "-n", "9", "--weights", "none"]


def invoke(*words: str) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["erf", *words])  # which a file records
        return CliRunner().invoke(app, list(words))


def names_in(path: Path) -> list[str]:
    """Names that are somewhere in a file, also where it is compressed."""
    content = path.read_bytes()
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            told = [str(value) for value in file.attrs.values()]

            def visit(name: str, item: h5py.HLObject) -> None:
                told.append(name)
                told.extend(str(value) for key, value in item.attrs.items() if "LIST" not in key)
                if isinstance(item, h5py.Dataset) and item.dtype.kind == "S":
                    told.extend(map(str, item[:]))

            file.visititems(visit)
        content += "\n".join(told).encode()
    return [name for name in NAMES if name.encode() in content]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Images of two patients in folders of their names, one of them damaged, and a manifest; the working folder."""
    place = tmp_path_factory.mktemp("private")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        lines = ["path,laterality,view,patient_id,site,years of age"]
        for index in range(8):
            phantom = erf.draw_phantom(index, seed=3, size=(128, 96))
            patient = ("Doe^Jane 19600101", "Roe^Ann")[index // 4]
            name = f"{patient}/scan-of {index}.png"
            Path("hospital", patient).mkdir(parents=True, exist_ok=True)
            Pillow.fromarray(phantom.pixels).save(Path("hospital", name))
            lines.append(f"{name},{phantom.laterality[0].upper()},{phantom.view},{patient},secret-site,4{index}")
        Path("hospital/Roe^Ann/scan-of 8.png").write_bytes(b"no picture")
        lines.append("Roe^Ann/scan-of 8.png,L,CC,Roe^Ann,secret-site,48")
        Path("hospital/m.csv").write_text("\n".join(lines) + "\n")
        done = invoke(*RUN, "-o", "raw.h5", "--no-picture", "--subset-by", "patient_id")
        assert done.exit_code == 3, done.output
        yield place


def test_what_a_file_tells_is_listed(folder: Path) -> None:
    found = {one.what: one for one in identifiers_of(Path("raw.h5"))}
    assert found["names of images"].count == 9
    assert found["patients"].count == 2
    assert found["columns of the manifest"].count == 10
    assert found["thumbnails"].count == 8
    assert found["subsets by a column"].count == 2
    assert {"command", "source of the images", "messages with paths"} <= set(found)
    done = invoke("show", "--private", "raw.h5")
    assert done.exit_code == 0
    assert "Doe^Jane" in done.stdout


def identifiers_of(path: Path) -> list[Identifier]:
    result = erf.load(path)
    return identifiers(result.images, [result.provenance], result.overview())


def test_an_anonymised_file_names_nobody_and_has_the_same_numbers(folder: Path) -> None:
    assert names_in(Path("raw.h5"))
    done = invoke("anonymise", "raw.h5", "-o", "without.h5", "--salt", SALT)
    assert done.exit_code == 0, done.output
    assert names_in(Path("without.h5")) == []
    assert identifiers_of(Path("without.h5")) == []
    raw, without = erf.load("raw.h5"), erf.load("without.h5")
    measures, ratios = pick_measures(("r50", "lean"))
    tables = [tabulate([each, each], measures, ratios) for each in (raw, without)]
    assert tables[0].units == tables[1].units == "patients"
    for one, two in zip(tables[0].entries, tables[1].entries, strict=True):
        for name, entry in one.items():
            values = [(it.interval.value, it.interval.low, it.interval.high, it.side_p) for it in (entry, two[name])]
            np.testing.assert_allclose(values[0], values[1], rtol=1e-9)  # sums in another order of patients
    np.testing.assert_array_equal(raw.statistics().mean, without.statistics().mean)
    assert raw.count("patient_id=Roe^Ann") == 4
    assert sorted(map(without.count, without.subsets)) == sorted(map(raw.count, raw.subsets))
    assert "no identifying information" in invoke("show", "--private", "without.h5").stdout


def test_a_run_that_names_nobody_equals_a_file_without_names(folder: Path) -> None:
    done = invoke(*RUN, "-o", "run.h5", "--anonymise", "--salt", SALT, "--subset-by", "patient_id")
    assert done.exit_code == 3, done.output
    assert not [name for name in NAMES if name in done.output]
    for name in ("run.h5", "run.png"):
        assert names_in(Path(name)) == [], name
    invoke("anonymise", "raw.h5", "-o", "file.h5", "--salt", SALT)
    run, file = erf.load("run.h5"), erf.load("file.h5")
    told = [{(it.id, it.patient_id, it.sha256, it.subsets, it.message) for it in each.images} for each in (run, file)]
    assert told[0] == told[1]
    overview = run.overview()
    assert overview is not None
    assert not overview.thumbnail.any()
    assert overview.tissue.any()


def test_salts_pair_files_or_do_not(folder: Path) -> None:
    raw = erf.load("raw.h5")
    one, same, other = (erf.anonymise(raw, salt=salt) for salt in (SALT, SALT, "another salt"))
    assert [image.id for image in one.images] == [image.id for image in same.images]
    assert not {image.id for image in one.images} & {image.id for image in other.images}
    drawn = [erf.anonymise(raw).images[0].sha256 for _ in range(2)]
    assert drawn[0] != drawn[1]
    assert len({image.patient_id for image in one.images}) == 2


def test_what_is_kept_is_said(folder: Path) -> None:
    raw = erf.load("raw.h5")
    kept = erf.anonymise(raw, salt=SALT, keep=("years of age",), thumbnails=True)
    assert set(kept.images[0].columns) == {"years of age"}
    told = {one.what for one in identifiers(kept.images, [kept.provenance], kept.overview())}
    assert told == {"columns of the manifest", "thumbnails"}
    for more, words in {
        ("--subset-by", "site"): "leaves out the column 'site'",
        ("--unit", "column:box"): "leaves out the column 'box'",
        ("--shard", "1/2"): "needs --salt",
    }.items():
        done = invoke(*RUN, "-o", "no.h5", "--anonymise", *more)
        assert done.exit_code == 2
        assert words in done.stderr


def test_a_report_says_whether_it_names_anybody(folder: Path) -> None:
    invoke("anonymise", "raw.h5", "-o", "quiet.h5", "--overwrite")
    for name, tells in (("raw", True), ("quiet", False)):
        done = invoke("report", f"{name}.h5", "-o", f"{name}.html", "--resamples", "100")
        assert done.exit_code == 0, done.output
        page = Path(f"{name}.html").read_text().split('id="content">')[1].split("</script>")[0]
        assert ("tells of whom images are: names of images (9), patients (2)" in page) == tells
        assert ("Doe^Jane" in page) == tells
        assert ("thumbnails (8)" in page) == tells


def test_series_name_nobody(folder: Path) -> None:
    raw = erf.load("raw.h5")
    save_series(Series.of(raw, Moment.of(raw, 0)), Path("series.h5"))
    done = invoke("anonymise", "series.h5", "-o", "quiet-series.h5", "--salt", SALT)
    assert done.exit_code == 0, done.output
    assert names_in(Path("quiet-series.h5")) == []
    again = load_series(Path("quiet-series.h5"))
    assert again.images[0].id == erf.anonymise(raw, salt=SALT).images[0].id
    assert invoke("show", "--private", "series.h5").stdout.count("Doe^Jane") > 1


def test_progress_and_its_continuation_name_nobody(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a salt of the user's, one is kept beside the progress until the run is done."""
    from erf.engine.run import Run

    visited = []

    def save_and_stop(self: Run) -> None:
        visited.append(1)
        if len(visited) == 2:
            self.progress.save(self.measurements, self.visited)
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "_pause", save_and_stop)
    words = [*RUN, "-o", "go.h5", "--anonymise", "--no-picture", "--batch-size", "2"]
    assert invoke(*words).exit_code == 130
    progress = Path(".go.h5.progress")
    for path in filter(Path.is_file, progress.rglob("*")):
        assert not [name for name in NAMES if name.encode() in path.read_bytes()], path
    salt = (progress / ".salt").read_text()
    monkeypatch.undo()
    done = invoke(*words, "--resume")
    assert done.exit_code == 3, done.output
    assert not progress.exists()
    first = erf.load("raw.h5").images[0]
    assert Anonymity(salt).record(first).id in {image.id for image in erf.load("go.h5").images}
    assert salt.encode() not in Path("go.h5").read_bytes()


@pytest.mark.parametrize(
    "message",
    [
        "Doe/1.png: is damaged",
        "/data/hospital/Doe Jane 1960/Doe/1.png: is damaged",
        "C:\\data\\Doe\\1.png: is damaged",
        "1.png: is damaged",
        "cannot open /tmp/Doe x: is damaged",
    ],
)
def test_messages_name_nobody(message: str, folder: Path) -> None:
    raw = erf.load("raw.h5")
    record = replace(raw.images[0], id="Doe/1.png", path="Doe/1.png", patient_id="P1", message=message)
    found = Anonymity(SALT).record(record).message
    assert "Doe" not in found
    assert "hospital" not in found
    assert "1.png" not in found
    assert found.endswith("is damaged")


def test_commands_keep_no_values() -> None:
    from erf.results import Origin

    command = "erf compute -m gmic -oDoe.h5 --images=Doe/m.csv --salt x 'Doe Jane/w.pt' -n 3 -o Doe"
    origin = Anonymity(SALT).origin(
        Origin(command=command, model="/home/Doe/net.py:Net", weights="Doe/w.pt", source="Doe/m.csv")
    )
    assert origin.command == "erf compute -m -o --images --salt -n -o"
    assert (origin.model, origin.weights) == ("net.py:Net", "w.pt")
    assert origin.source.startswith("source-")
