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
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def commands(text: str) -> list[str]:
    """Lines of the shell blocks of a Markdown text."""
    return [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines() if line]


def test_ci_runs_the_readmes_test_command() -> None:
    (test_command,) = [line for line in commands(README) if "pytest" in line]
    assert test_command in (ROOT / ".ci" / "run").read_text()


def test_every_option_in_the_readme_exists() -> None:
    from typer.testing import CliRunner

    from erf.cli import app

    for line in commands(README):
        for call in re.findall(
            r"\berf (compute|merge|compare|plot|report|show|models|layers|theory|check|bench|train|evaluate|manifest)([^&|]*)",
            line,
        ):
            shown = CliRunner().invoke(app, [call[0], "--help"], env={"COLUMNS": "300"}).stdout
            for option in re.findall(r"(?<!\S)--?[a-z][a-z-]*", call[1]):
                assert option in shown, f"{option} of: {line}"


def test_the_readme_names_every_model() -> None:
    for name in list_models():
        assert f"`{name}`" in README


def test_python_examples_use_names_that_exist() -> None:
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "erf":
                assert node.attr in (*erf.__all__, "models"), node.attr


def test_links_lead_somewhere() -> None:
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!http|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_hold_no_output_and_use_the_public_interface(path: Path) -> None:
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    for cell in code:
        for node in ast.walk(ast.parse("".join(cell["source"]))):
            if isinstance(node, ast.ImportFrom) and node.module:
                assert not node.module.startswith("erf.") or node.module == "erf.models"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("ERF_NOTEBOOK_SIZE", "256x192")
    monkeypatch.setenv("ERF_NOTEBOOK_IMAGES", "4")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        # Not the user's own, which may have a profile of theirs, or lie where nothing can be written.
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
