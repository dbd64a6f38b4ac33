"""The report page: complete, escaped, and alive in a real browser."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import erf
from erf.cli import app
from erf.comparison import tabulate
from erf.measures import pick_measures
from erf.report import write_report
from erf.report.content import describe
from erf.results import ERF
from erf.uncertainty import Resampling
from tests.conftest import small_network

QUICK = Resampling(resamples=100)
HOSTILE = "</script><img src=x onerror=alert(1)>&amp;"


@pytest.fixture(scope="module")
def pair() -> list[ERF]:
    arrays = [np.random.default_rng(seed).standard_normal((1, 40, 32)) for seed in range(10)]
    results = [
        erf.compute(
            small_network(seed),
            erf.from_arrays(arrays, ["left", "right"] * 5),
            layer="5",
            definitions=("abs", "signed"),
            seed=seed,
            origin=erf.Origin(model=name),
            device="cpu",
        )
        for seed, name in enumerate(("first", HOSTILE))
    ]
    hostile = replace(results[1].images[0], id=HOSTILE, message=HOSTILE)
    return [results[0], replace(results[1], images=(hostile, *results[1].images[1:]))]


def written(pair: list[ERF], folder: Path) -> Path:
    return write_report(tabulate(pair, *pick_measures(), resampling=QUICK), folder / "r.html", overwrite=True)


def content_of(page: str) -> dict[str, Any]:
    (found,) = re.findall(r'<script type="application/json" id="content">(.*?)</script>', page, re.DOTALL)
    return json.loads(found)


def test_the_page_holds_what_the_files_hold(pair: list[ERF], tmp_path: Path) -> None:
    content = content_of(written(pair, tmp_path).read_text())
    assert content == json.loads(json.dumps(describe(tabulate(pair, *pick_measures(), resampling=QUICK))))
    assert content["labels"] == ["first", HOSTILE]
    assert len(content["panels"]) == 2 * 3 * 2
    mean = pair[0].statistics("left").mean
    panel = content["panels"]["0/left/abs"]
    assert panel["shape"] == list(mean.shape)
    share = np.array(panel["curves"]["across_rows"]["share"])
    assert share.sum() == pytest.approx(1000, rel=1e-3)
    assert "low" in panel["curves"]["across_rows"]
    assert "low" not in content["panels"]["0/left/signed"]["curves"]["across_rows"]
    assert [image["id"] for image in content["images"][0]] == [image.id for image in pair[0].images]


def test_nothing_that_comes_from_files_is_markup(pair: list[ERF], tmp_path: Path) -> None:
    page = written(pair, tmp_path).read_text()
    assert "<img src=x" not in page
    assert page.count("</script>") == 3
    assert not re.findall(r'(?:src|href)="(?!#|data:)', page.split("<script>")[0])


def test_the_command(pair: list[ERF], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    erf.save(pair[0], "a.h5")
    result = CliRunner().invoke(app, ["report", "a.h5", "--resamples", "100"])
    assert (result.exit_code, result.stdout) == (0, "written: report.html\n")
    for words, message in (
        (["a.h5"], "report.html exists"),
        (["a.h5", "-o", "r.pdf"], "suffix '.pdf' not known; expected one of .html, .htm"),
        (["lost.h5", "-o", "new.html"], "no such file"),
        (["a.h5", "-o", "no/r.html"], "no/r.html cannot be written"),
    ):
        refused = CliRunner().invoke(app, ["report", "--resamples", "100", *words])
        assert refused.exit_code == 2
        (line,) = refused.stderr.strip().splitlines()
        assert message in line


@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(browser: Any, pair: list[ERF], tmp_path: Path, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900})
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda asked: said.append(asked.url) if asked.url.startswith("http") else None)
    page.goto(written(pair, tmp_path).as_uri())
    page.wait_for_selector("#field-1 .heatmaplayer .hm")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#browser figure").count() == 10

    def drawn() -> str:
        return page.evaluate("JSON.stringify(document.getElementById('field-0').data.map((t) => [t.z, t.x, t.y]))")

    seen = {drawn()}
    for name, value in (("scale", "sqrt"), ("scale", "linear"), ("subset", "left"), ("definition", "signed")):
        page.select_option(f"select[data-name={name}]", value)
        assert drawn() not in seen, name
        seen.add(drawn())
    page.wait_for_function("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert page.locator("#browser img").count() == 20
    assert page.locator("#field-0 .xtitle").first.text_content() == "x [px]"
    page.select_option("select[data-name=side]", "right")
    assert page.locator("#browser figure").count() == 5
    page.select_option("select[data-name=file]", "1")
    page.select_option("select[data-name=side]", "")
    assert HOSTILE in page.locator("#browser figcaption").first.inner_text()
    assert said == []
    page.close()
