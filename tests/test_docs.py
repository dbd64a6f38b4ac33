"""Documents hold to the code: the README's commands, the notebooks, the numbers."""

import ast
import json
import re
from pathlib import Path

import pytest

import erf
from erf.models import list_models

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
BUILT = ("notebooks/", "auto_examples/")
"""Folders of the site that its build copies or makes."""
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def commands(text: str) -> list[str]:
    """Lines of the shell blocks of a Markdown text; those that end with a backslash are joined."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line]


def headings(text: str) -> set[str]:
    """Anchors of the headings of a Markdown text, as on GitHub."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_ci_runs_the_readmes_test_command() -> None:
    (test_command,) = [line for line in commands(README) if "pytest" in line]
    assert test_command in (ROOT / ".ci" / "run").read_text()


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """Help text of every command of `erf`."""
    from typer.main import get_command
    from typer.testing import CliRunner

    from erf.cli import app

    names = [*get_command(app).commands]  # type: ignore[attr-defined]
    return {name: CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "300"}).stdout for name in names}


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_every_command_and_option_exists(path: Path, helps: dict[str, str]) -> None:
    for line in commands(path.read_text()):
        for name, options in re.findall(r"(?:^|[ /])erf ([a-z]+)\b([^&|#]*)", line):
            assert name in helps, line
            for option in re.findall(r"(?<!\S)--?[a-z][a-z-]*", options):
                assert option in helps[name], f"{option} of: {line}"


def test_a_page_names_every_model() -> None:
    page = (DOCS / "models.md").read_text()
    for name in list_models():
        assert f"`{name}`" in page


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_python_examples_use_names_that_exist(path: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "erf":
                assert node.attr in (*erf.__all__, "models"), node.attr


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_links_lead_somewhere(path: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", path.read_text()):
        page = path.parent / target if target else path
        if path == DOCS / "index.md" and target.startswith(BUILT):
            page = ROOT / target.replace("auto_examples/index.rst", "docs/examples")
        assert page.exists(), f"{path.name}: {target}"
        assert not anchor or anchor in headings(page.read_text()), f"{path.name}: {target}#{anchor}"


def test_modules_that_the_pages_name_exist() -> None:
    for path in PAGES:
        for name in re.findall(r"`((?:erf|models|tests|benchmarks|scripts|docs)/[\w/.-]+)`", path.read_text()):
            assert (ROOT / name).exists() or "NAME" in name, f"{path.name}: {name}"


def test_every_page_is_listed() -> None:
    listed = set(re.findall(r"\]\((docs/[^)#]+)", README))
    assert {page_name(path) for path in DOCS.glob("*.md")} <= listed
    notes = set(re.findall(r"\]\((\d{4}-[^)]+)\)", (DOCS / "decisions" / "README.md").read_text()))
    assert {path.name for path in (DOCS / "decisions").glob("0*.md")} == notes


def test_each_decision_has_one_note() -> None:
    for path in (DOCS / "decisions").glob("0*.md"):
        titles = re.findall(r"^# (.*)$", path.read_text(), re.MULTILINE)
        assert len(titles) == 1, path.name
        assert titles[0].startswith(f"{int(path.name[:4])}. "), path.name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_hold_no_output_and_use_the_public_interface(path: Path) -> None:
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    for cell in code:
        for node in ast.walk(ast.parse("".join(cell["source"]))):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert not node.module.startswith("erf.") or node.module == "erf.models"


def test_notebooks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other in one kernel, since each would load the libraries again; no name outlives its notebook."""
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("ERF_NOTEBOOK_SIZE", "192x160")
    monkeypatch.setenv("ERF_NOTEBOOK_IMAGES", "4")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        # Not the user's own, which may have a profile of theirs, or lie where nothing can be written.
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    cells = []
    for path in NOTEBOOKS:
        code = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
        cells += [nbformat.v4.new_code_cell(source) for source in (*code, "%reset -f")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
