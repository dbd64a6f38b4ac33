"""Many networks in one page and one table."""

import csv
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import erf
from erf.cli import app
from erf.report.atlas.sources import expand
from tests.test_coloring import gaussian

NETWORK = """
from torch import nn

def small():
    return nn.Sequential(nn.Conv2d(1, 2, 5, padding=2), nn.Conv2d(2, 2, 3, padding=1))

def broken():
    raise RuntimeError("<b>no</b> such thing")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NETWORK)
    np.savez("maps.npz", wide=gaussian(9), narrow=50 * gaussian(3))
    erf.save(erf.import_map(gaussian(5), title='<script>"a"</script>'), "a.h5")
    return tmp_path


def made(*names: str, **options: Any) -> erf.Atlas:
    given: dict[str, Any] = {"n": 8, "size": (32, 24), "device": "cpu"} | options
    return erf.atlas(names, "atlas", **given)


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


class Rows(HTMLParser):
    """Cells of the rows of a page: (name, value) pairs of the numbers."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[dict[str, str]] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        if tag == "tr" and "data-kind" in found:
            self.rows.append({"kind": found["data-kind"] or ""})
        if tag in ("td", "th") and "data-value" in found and self.rows:
            self.rows[-1][found.get("data-name") or "network"] = found["data-value"] or ""


def test_an_atlas_of_networks_files_and_maps(folder: Path) -> None:
    found = made("net.py:small", "net.py:broken", "a.h5", "maps.npz", measures=["r50", "variability"])
    kinds = [entry.kind for entry in found.entries]
    assert kinds == ["trained", "failed", "imported", "imported", "imported"]
    assert [entry.label for entry in found.failures] == ["net.py:broken"]
    rows = table(found.table)
    assert [row["network"] for row in rows][2:] == ['<script>"a"</script>', "wide", "narrow"]
    assert "(RuntimeError: <b>no</b> such thing)" in rows[1]["reason"]
    small, alone = rows[0], erf.load(rows[0]["file"])
    r50 = alone.measure("r50")
    assert [float(small[name]) for name in ("r50", "r50_low", "r50_high")] == [r50.value, r50.low, r50.high]
    counted = sum(math.prod(shape) for shape in ((2, 1, 5, 5), (2,), (2, 2, 3, 3), (2,)))
    assert (int(small["parameters"]), float(small["field_height"]), small["images"]) == (counted, 7, "8")
    assert (rows[3]["r50_low"], rows[3]["images"], rows[3]["parameters"], rows[3]["layer"]) == ("", "", "", "")
    page = Rows(found.page.read_text())
    assert [row["kind"] for row in page.rows] == kinds
    assert [row["network"] for row in page.rows] == [row["network"] for row in rows]
    assert float(page.rows[0]["r50 [px]"]) == r50.value
    assert page.rows[3]["variability [%]"] == ""  # of a single map there is none
    assert page.tags.count("img") == 4


def test_a_page_is_one_file_and_escapes_what_it_shows(folder: Path) -> None:
    found = made("a.h5", "net.py:broken")
    text = found.page.read_text()
    assert repr(found) == "atlas of 2 networks, 1 without a field: atlas/index.html"
    assert Rows(found._repr_html_()).tags == ["iframe"]
    assert '<script>"a"' not in text
    assert "<b>no" not in text
    assert "&lt;b&gt;no&lt;/b&gt;" in text
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert Rows(text).tags.count("script") == 1


def test_the_same_call_resumes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = made("net.py:small")
    written = Path(first.entries[0].file).stat().st_mtime_ns
    monkeypatch.setattr("erf.engine.compute", lambda *args, **options: pytest.fail("computed again"))
    again = made("net.py:small", "a.h5")
    assert Path(again.entries[0].file).stat().st_mtime_ns == written
    assert len(table(again.table)) == 2
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    other = made("net.py:small", n=4)
    assert other.entries[0].file != first.entries[0].file
    assert other.entries[0].images == 4


def test_an_interrupted_atlas_keeps_what_is_done(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made("net.py:small")

    def interrupted(*args: Any, **options: Any) -> None:
        raise erf.InterruptedRunError("stopped")

    monkeypatch.setattr("erf.engine.compute", interrupted)
    with pytest.raises(erf.InterruptedRunError):
        made("net.py:small", "resnet18")
    monkeypatch.undo()
    assert len(list((folder / "atlas" / "fields").glob("*.h5"))) == 1


def shades(atlas: erf.Atlas) -> list[float]:
    """Largest value of each thumbnail, from 0 to 1."""
    import base64
    import io

    from PIL import Image

    found = re.findall(r"base64,([^\"]+)\" alt", atlas.page.read_text())
    return [float(np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))).max()) / 63 for text in found]


def test_one_scale_or_each_its_own(folder: Path) -> None:
    assert shades(made("maps.npz", scale="linear")) == [1, 1]
    wide, narrow = shades(made("maps.npz", scale="linear", joint_scale=True))
    assert narrow == 1
    assert wide == pytest.approx(gaussian(9).max() / gaussian(3).max(), abs=0.5 / 63)


def test_names_patterns_and_lists(folder: Path) -> None:
    Path("list.txt").write_text("# networks\nunet-star*  # a pattern\n\nresnet18\na.h5\n")
    names = [source.name for source in expand(["list.txt", "resnet18", "timm:resnet1?"])]
    assert names[:2] == ["unet-star", "unet-star-a2"]
    assert names.count("resnet18") == 1
    assert "timm:resnet18" in names
    assert [source.array for source in expand(["maps.npz"])] == ["wide", "narrow"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], "no networks"),
        (["nothing*"], "no network matches 'nothing\\*'"),
        (["torchvision:*"], "such as timm:resnet"),
        (["missing.txt"], "no such list"),
        (["nested.txt"], "names another one"),
        (["latin.txt"], "not UTF-8"),
    ],
)
def test_a_list_that_cannot_be_read_is_one_line(folder: Path, names: list[str], words: str) -> None:
    Path("nested.txt").write_text("other.txt\n")
    Path("latin.txt").write_bytes(b"\xe4\n")
    with pytest.raises(erf.InputError, match=words) as error:
        expand(names)
    assert "\n" not in str(error.value)


def test_another_page_is_not_replaced(folder: Path) -> None:
    Path("atlas").mkdir()
    Path("atlas/index.html").write_text("<p>mine</p>")
    with pytest.raises(erf.OutputExistsError, match="is no atlas"):
        made("a.h5")
    assert made("a.h5", overwrite=True).page.read_text() != "<p>mine</p>"


def test_the_command_reports_each_network(folder: Path) -> None:
    run = CliRunner().invoke
    result = run(
        app,
        ["atlas", "a.h5", "net.py:small", "net.py:broken", "-n", "2", "--size", "16x16", "-o", "x", "--joint-scale"],
    )
    assert result.exit_code == 3, result.output
    assert re.search(r"2/3 net.py:small: r50 .* px", result.output)
    assert "1 of 3 networks have no field" in result.output
    assert run(app, ["atlas", "a.h5", "-o", "x", "--measures", "none"]).exit_code == 2


def test_files_need_no_network(folder: Path) -> None:
    """The parameters of a network are in its file, also for the atlas."""
    torch.manual_seed(0)
    erf.compute(torch.nn.Conv2d(1, 3, 3, padding=1), n=4, size=(16, 12), layer="output", output="b.h5", progress=False)
    (entry,) = made("b.h5").entries
    assert entry.parameters == 30


def test_a_network_that_ends_the_program_is_a_row(folder: Path) -> None:
    Path("net.py").write_text(f"{NETWORK}\n\ndef ends():\n    raise SystemExit(0)\n")
    atlas = made("net.py:ends", "net.py:small")
    assert [bool(each.reason) for each in atlas.entries] == [True, False]


def test_another_table_is_not_replaced(folder: Path) -> None:
    Path("atlas").mkdir()
    Path("atlas/atlas.csv").write_text("mine\n")
    with pytest.raises(erf.OutputExistsError, match=r"atlas\.csv"):
        made("a.h5")
    assert Path("atlas/atlas.csv").read_text() == "mine\n"
    assert not Path("atlas/index.html").exists()


@pytest.mark.parametrize("definition", ["signed", "nonsense"])
def test_a_definition_that_cannot_be_measured_leaves_the_page(folder: Path, definition: str) -> None:
    page = made("a.h5").page.read_text()
    with pytest.raises(erf.InputError, match=definition):
        made("a.h5", definition=definition)
    assert Path("atlas/index.html").read_text() == page
