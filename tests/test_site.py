"""The documentation site, without building it: settings, pages in the sidebar, names in the reference."""

import ast
import re
import runpy
from pathlib import Path

import pytest

import erf

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
INDEX = (DOCS / "index.md").read_text()
REFERENCE = DOCS / "reference"
EXAMPLES = sorted((DOCS / "examples").glob("*.py"))


def test_the_settings_of_sphinx_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERF_NOTEBOOK_SIZE", "192x160")
    monkeypatch.setenv("ERF_NOTEBOOK_IMAGES", "4")
    monkeypatch.syspath_prepend(DOCS)  # undoes what the settings add
    settings = runpy.run_path(str(DOCS / "conf.py"))
    own = {path.stem for path in (DOCS / "_extensions").glob("*.py")}
    assert own - {"gallery", "generated"} <= set(settings["extensions"])


def test_every_page_and_notebook_is_in_the_sidebar() -> None:
    listed = {line for block in re.findall(r"```{toctree}\n(.*?)```", INDEX, re.DOTALL) for line in block.split()}
    listed |= {f"reference/{line}" for line in (REFERENCE / "names.md").read_text().split()}
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.glob("*.md")}
    pages |= {path.relative_to(DOCS).with_suffix("").as_posix() for path in REFERENCE.glob("*.md")}
    pages |= {f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert pages - {"index"} <= listed


def test_every_public_name_is_in_the_reference() -> None:
    table = (REFERENCE / "names.md").read_text().split()
    pages = "".join(path.read_text() for path in REFERENCE.glob("*.md"))
    for name in erf.__all__:
        assert name in table
        assert f":: erf.{name}\n" in pages


def test_site_and_readme_have_one_command() -> None:
    (command,) = re.findall(r"^.*-m sphinx.*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert command in (ROOT / ".ci" / "site").read_text()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_has_a_title(path: Path) -> None:
    title, underline = (ast.get_docstring(ast.parse(path.read_text())) or "").splitlines()[:2]
    assert underline == "=" * len(title)
    code = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    assert len(code) <= 60
