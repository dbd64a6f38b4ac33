"""ERF files of others: nothing outside them is read, nothing they claim is believed, damage is seen wherever it is."""

import csv
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

import erf
from erf.cli import app
from erf.errors import FormatError
from erf.results import ERF, Provenance, blank_overview, blank_profile
from erf.storage import check_sums
from erf.storage.series import Moment, Series, load_series, save_series
from tests.conftest import small_network
from tests.test_hostile import limited_memory

SECRET = b"secret of another file"
MEAN = "subsets/all/abs/mean"

Edit = Callable[[h5py.File], Any]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> ERF:
    arrays = [np.random.default_rng(index).standard_normal((1, 40, 32)) for index in range(4)]
    sides = ["left", "right", "left", "right"]
    result = erf.compute(small_network(), erf.from_arrays(arrays, sides), layer="5", device="cpu")
    path = tmp_path_factory.mktemp("good") / "good.h5"
    erf.save(result, path)
    return result


def read_all(path: Path) -> ERF:
    """Everything that a file holds."""
    found = erf.load(path)
    for subset in found.subsets:
        statistics = found.statistics(subset)
        assert all(hasattr(statistics, item.name) for item in fields(statistics))
    assert found.profiles["abs"] is not None
    found.overview()
    return found


def put(name: str, **arguments: Any) -> Edit:
    def edit(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **arguments)

    return edit


def link(name: str, target: Any) -> Edit:
    def edit(file: h5py.File) -> None:
        del file[name]
        file[name] = target

    return edit


def mapped_from(name: str) -> Edit:
    def edit(file: h5py.File) -> None:
        layout = h5py.VirtualLayout((40, 32), "f4")
        layout[:] = h5py.VirtualSource("other.h5", "mean", (40, 32))
        del file[name]
        file.create_virtual_dataset(name, layout)

    return edit


def filtered(file: h5py.File) -> None:
    """A dataset behind a filter that HDF5 would look for among plugins."""
    del file[MEAN]
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((40, 32))
    settings.set_filter(32004, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((40, 32))
    h5py.h5d.create(file["subsets/all/abs"].id, b"mean", h5py.h5t.IEEE_F32LE, space, settings)


def attribute(name: str, value: Any, where: str = "/") -> Edit:
    def edit(file: h5py.File) -> None:
        file[where].attrs[name] = value

    return edit


def texts(*values: str) -> np.ndarray:
    return np.array([value.encode() for value in values])


ELSEWHERE: dict[str, Edit] = {
    "external storage": put(MEAN, shape=(40, 32), dtype="f4", external=[("secret", 0, 5120)]),
    "external storage of texts": put("images/id", shape=(4,), dtype="S16", external=[("secret", 0, 64)]),
    "external link": link(MEAN, h5py.ExternalLink("other.h5", "mean")),
    "external link to texts": link("images/id", h5py.ExternalLink("other.h5", "texts")),
    "external group": link("subsets", h5py.ExternalLink("other.h5", "/")),
    "soft link": link(MEAN, h5py.SoftLink("/subsets/left/abs/mean")),
    "soft loop": link("subsets", h5py.SoftLink("/subsets")),
    "virtual": mapped_from(MEAN),
    "plugin": filtered,
}

OTHERWISE: dict[str, Edit] = {
    "group in a group": lambda file: file["subsets"].__setitem__("loop", file["subsets"]),
    "type": link(MEAN, np.dtype("f4")),
    "text": put(MEAN, data=np.full((40, 32), b"1")),
    "three axes": put(MEAN, data=np.zeros((1, 40, 32), "f4")),
    "no values": put(MEAN, data=h5py.Empty("f4")),
    "references": put(MEAN, shape=(40, 32), dtype=h5py.ref_dtype),
    "whole numbers": put(MEAN, data=np.zeros((40, 32), "i4")),
    "not finite": put(MEAN, data=np.full((40, 32), np.nan, "f4")),
    "larger than sums": put("subsets/all/abs/across_columns", data=np.full(40, np.finfo("f8").max)),
    "ids": put("images/id", data=texts("a", "b", "c")),
    "ids of any length": put("images/id", data=np.array(["a"] * 4, object), dtype=h5py.string_dtype()),
    "columns": put("images/columns", data=texts(*["[1]"] * 4)),
    "deep columns": put("images/columns", data=texts(*['{"a":' * 300 + "1" + "}" * 300] * 4)),
    "deeper columns": put("images/columns", data=texts(*["[" * 50000] * 4)),
    "subsets": put("images/subsets", data=texts(*["[]"] * 4)),
    "status": put("images/status", data=texts(*["maybe"] * 4)),
    "footprints": lambda file: file["images/abs/small"].resize(2, 0),
    "count": attribute("count", 7, "subsets/all/abs"),
    "count of text": attribute("count", np.bytes_(b"x"), "subsets/all/abs"),
    "two of one subset": attribute("subset", np.bytes_(b"left"), "subsets/all"),
    "centre": attribute("unit_center", (np.nan, 1.0)),
    "centre of text": attribute("unit_center", np.bytes_(b"x")),
    "short centre": attribute("unit_center", (1.0,)),
    "negative shape": attribute("input_shape", (-1, 40, 32)),
    "immense shape": attribute("input_shape", (1, 2**40, 2**40)),
    "block": attribute("small_block", 0),
    "other block": attribute("small_block", 3),
    "definition": attribute("definitions", texts("new")),
    "definition twice": attribute("definitions", texts("abs", "abs")),
    "crop": attribute("crop", (0, 0, 50, 32)),
    "shard": attribute("shard", (3, 2)),
    "unit": attribute("unit", (99, 99)),
    "field": attribute("field_size", (np.nan, 1.0)),
    "options": attribute("model_options", np.bytes_(b"[1]")),
    "long text": attribute("layer", np.bytes_(b"x" * 60000)),
    "version": attribute("format_version", np.bytes_(b"1")),
}


def edited(good: ERF, path: Path, edit: Edit) -> Path:
    erf.save(good, path)
    with h5py.File(path, "r+") as file:
        edit(file)
    return path


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_nothing_elsewhere_is_read(kind: str, good: ERF, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("secret").write_bytes(SECRET * 300)
    with h5py.File("other.h5", "w") as file:
        file["mean"], file["texts"] = np.ones((40, 32), "f4"), np.array([SECRET] * 4)
    path = edited(good, Path("bad.h5"), ELSEWHERE[kind])
    with pytest.raises(FormatError, match=r"bad\.h5: .*(not followed|filters \[32004\])") as caught:
        read_all(path)
    assert SECRET.decode() not in str(caught.value)


@pytest.mark.parametrize("kind", OTHERWISE)
def test_what_a_file_should_not_hold_is_refused_in_one_line(kind: str, good: ERF, tmp_path: Path) -> None:
    path = edited(good, tmp_path / "bad.h5", OTHERWISE[kind])
    with pytest.raises(FormatError, match=r"bad\.h5: ") as caught:
        read_all(path)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value).replace(str(path), "")) < 500


def claim(file: h5py.File, origin: Provenance) -> None:
    """Consistent claims of gigabytes that take no place."""
    origin = replace(origin, input_shape=(1, 16000, 16000), small_block=500)
    file.attrs["input_shape"], file.attrs["small_block"] = origin.input_shape, origin.small_block
    for subset in file["subsets"].values():
        for name in ("mean", "variance"):
            del subset["abs"][name]
            subset["abs"].create_dataset(name, (16000, 16000), "f4", chunks=(1000, 1000), compression="gzip")
        for name in ("across_rows", "across_columns"):
            del subset["abs"][name]
            subset["abs"][name] = np.ones(16000)
    for group, blank in ("images/abs", blank_profile(origin)), ("images", blank_overview(origin)):
        for name, array in vars(blank).items():
            put(f"{group}/{name}", data=np.ones((4, *array.shape), array.dtype))(file)


def test_gigabytes_that_take_no_place_are_refused(good: ERF, tmp_path: Path) -> None:
    path = edited(good, tmp_path / "bad.h5", partial(claim, origin=good.provenance))
    with limited_memory(), pytest.raises(FormatError, match=r"bad\.h5: .*missing") as caught:
        read_all(path)
    assert "memory" not in str(caught.value)


def test_pipes_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.h5")
    for read in (erf.load, load_series, check_sums):
        with pytest.raises(FormatError, match=r"a\.h5: found a folder, pipe or device"):
            read(tmp_path / "a.h5")


# Integrity.


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)


READER = """
import sys
from dataclasses import fields
from pathlib import Path
import numpy as np
from erf.errors import FormatError
from erf.storage import check_sums
from tests.test_hostile_erf_files import read_all

def values(path):
    found = read_all(path)
    yield found.provenance, found.images
    for subset in found.subsets:
        statistics = found.statistics(subset)
        yield from (getattr(statistics, item.name) for item in fields(statistics))
    yield from [*vars(found.profiles["abs"]).values(), *vars(found.overview()).values()]

folder = Path(sys.argv[1])
good = [repr(it) if not isinstance(it, np.ndarray) else it.tobytes() for it in values(folder / "good.h5")]
for path in sorted(folder.glob("bit*.h5")):
    try:
        assert [repr(it) if not isinstance(it, np.ndarray) else it.tobytes() for it in values(path)] == good, path
        unseen = True
    except FormatError as error:
        assert path.name in str(error)
        unseen = False
    try:
        assert not check_sums(path), path
    except FormatError as error:
        assert "damaged" in str(error)
print("end")
"""


def test_every_flipped_bit_is_seen(good: ERF, tmp_path: Path) -> None:
    """Wherever it is: by whoever reads that part, and by who looks at the whole; none changes a number."""
    erf.save(good, tmp_path / "good.h5")
    content = (tmp_path / "good.h5").read_bytes()
    rng = random.Random(5)
    bits = [rng.randrange(8 * len(content)) for _ in range(120)]
    bits += [8 * len(content) - 1 - rng.randrange(8 * 120) for _ in range(30)]  # in the sums themselves
    for number, bit in enumerate(bits):
        (tmp_path / f"bit{number:03d}.h5").write_bytes(flipped(content, bit))
    done = subprocess.run(
        [sys.executable, "-c", READER, str(tmp_path)],
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.stdout == "end\n", done.stderr[-2000:]


def test_a_file_without_sums_is_read(good: ERF, tmp_path: Path) -> None:
    path = edited(good, tmp_path / "old.h5", lambda file: file.attrs.__setitem__("note", 1))
    assert read_all(path).count() == 4
    assert not check_sums(path)
    erf.save(good, path, overwrite=True)
    assert check_sums(path)


# Series.


def test_series_of_others(good: ERF, tmp_path: Path) -> None:
    path = tmp_path / "s.h5"
    series = Series.of(good, Moment.of(good, 0)).added(good, Moment.of(good, 1, "x", {"validation_auc": 0.5}))

    def provenance(**values: Any) -> Edit:
        def edit(file: h5py.File) -> None:
            told = [json.loads(text) | values for text in file["provenance"][:]]
            put("provenance", data=texts(*map(json.dumps, told)))(file)

        return edit

    edits: list[Edit] = [
        provenance(unit_center=["x", 1]),
        provenance(small_block=0),
        provenance(new=1),
        put("epoch", data=np.array([0, 0])),
        put("scores", data=texts('{"validation_auc": "x"}', "{}")),
        put("images", data=texts(*["3"] * 4)),
        put("footprints/abs/small", data=np.ones((2, 4, 1, 1), "f4")),
        put("footprints/abs/small", data=np.full((2, 4, 40, 32), np.nan, "f4")),
        link("footprints/abs/small", h5py.ExternalLink("other.h5", "mean")),
        lambda file: file.__delitem__("footprints"),
    ]
    for edit in edits:
        save_series(series, path, overwrite=True)
        with h5py.File(path, "r+") as file:
            edit(file)
        with pytest.raises(FormatError, match=r"s\.h5: cannot be read as a series"):
            load_series(path)
    save_series(series, path, overwrite=True)
    content = path.read_bytes()
    for place in (0.1, 0.4, 0.7, 0.999):
        path.write_bytes(flipped(content, int(8 * len(content) * place)))
        with pytest.raises(FormatError, match=r"s\.h5: "):
            load_series(path)


def test_names_of_groups_do_not_collide(good: ERF, tmp_path: Path) -> None:
    names = ["a/b", "a∕b", "a%2Fb", ".", "..", "/", "%", "左"]
    images = tuple(replace(image, subsets=("all", *names)) for image in good.images)
    statistics = good.subsets["all"]
    result = replace(good, images=images, subsets={"all": statistics} | dict.fromkeys(names, statistics))
    erf.save(result, tmp_path / "a.h5")
    assert set(read_all(tmp_path / "a.h5").subsets) == {"all", *names}


# Texts.

STRANGE = "[/red]\x1b]0;x\x07$\\frac{$ =1+1|<img src=x onerror=alert(1)>\u202e"


def test_strange_texts_come_out_as_they_are_written(good: ERF, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, models, layers and subsets that terminals, rich, matplotlib, TeX, spreadsheets and pages would obey."""
    monkeypatch.chdir(tmp_path)
    images = tuple(
        replace(it, id=f"{STRANGE}{it.id}", patient_id=STRANGE, message=STRANGE, subsets=(*it.subsets, STRANGE))
        for it in good.images
    )
    subsets = dict(good.subsets) | {STRANGE: good.subsets["all"]}
    origin = replace(good.provenance, model=f"={STRANGE}", layer=STRANGE, weights=f"w/{STRANGE}", command=STRANGE)
    erf.save(replace(good, provenance=origin, images=images, subsets=subsets), "s.h5")
    outputs = [word for kind in ("csv", "tex", "md") for word in ("-o", f"t.{kind}")]
    for words in (
        ["show", "s.h5", "--images"],
        ["show", "s.h5", "--private"],
        ["compare", "s.h5", "s.h5", "--resamples", "100", "--measures", "r50", *outputs],
        ["plot", "s.h5", "-o", "s.png"],
        ["plot", "s.h5", "-o", "s.svg", "--layout", "radial"],
        ["plot", "s.h5", "-o", "s.html"],
        ["report", "s.h5", "-o", "r.html", "--resamples", "100", "--measures", "r50"],
        ["show", f"{STRANGE}.h5"],
    ):
        done = CliRunner().invoke(app, words)
        assert done.exit_code == (2 if words[1] == f"{STRANGE}.h5" else 0), (words, done.output, done.exception)
        assert not set(done.output) & set("\x1b\x07\u202e"), words
        assert words[0] != "show" or "[/red]" in done.output
    (first, *_) = csv.DictReader(Path("t.csv").read_text("utf-8").splitlines())
    assert first["model"].startswith("'=[/red]")
    assert r"\textbackslash{}frac\{" in Path("t.tex").read_text()
    assert "<img" not in Path("s.html").read_text() + Path("r.html").read_text()
    assert not any(
        set(path.read_text("utf-8")) & set("\x1b\x07\u202e") for path in map(Path, ("t.csv", "t.tex", "t.md"))
    )
