"""The package as it is installed: nothing left out, nothing that leaks."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import erf

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_every_package_is_listed() -> None:
    found = {"erf"}
    for folder in ("erf", "models"):
        for init in (ROOT / folder).rglob("__init__.py"):
            if "erf/models" in init.as_posix():
                continue
            parts = init.parent.relative_to(ROOT).parts
            found.add(".".join(("erf", *parts) if parts[0] == "models" else parts))
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found


def test_the_link_and_the_mapping_agree() -> None:
    assert (ROOT / "erf" / "models").resolve() == (ROOT / "models").resolve()
    assert PROJECT["tool"]["setuptools"]["package-dir"] == {"erf": "erf", "erf.models": "models"}


def test_the_top_level_is_as_agreed() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not tracked:
        pytest.skip("not a git checkout")
    assert {line.split("/")[0] for line in tracked.splitlines()} <= {
        "erf", "models", "notebooks", "cli.py", "tests", "pyproject.toml", "README.md",
        "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "CITATION.cff", "MANIFEST.in", "docs", "benchmarks", "scripts",
        ".ci", ".github", ".gitignore", ".gitattributes", ".pre-commit-config.yaml",
    }  # fmt: skip


def test_every_package_that_is_imported_is_declared() -> None:
    """The wheel is tried beside the packages that developers have, so that one of theirs must not be relied on."""
    names = {"PIL": "pillow", "sklearn": "scikit-learn", "performer_pytorch": "performer-pytorch"}
    needed = {re.split(r"[>=<\[]", text)[0] for text in PROJECT["project"]["dependencies"]}
    extras = {"timm", "torchvision", "segmentation_models_pytorch"}
    imported = set()
    for path in (path for folder in ("erf", "models") for path in (ROOT / folder).glob("**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                imported.add(node.module.split(".")[0])
    foreign = imported - set(sys.stdlib_module_names) - {"erf", "typing_extensions"} - extras
    assert {names.get(name, name) for name in foreign} <= needed
    assert needed <= {names.get(name, name) for name in imported}, "declared, but not imported"


def test_models_refuse_any_other_name() -> None:
    result = subprocess.run(
        [sys.executable, "-c", "import models"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "imported as erf.models, not as models" in result.stderr


def test_the_table_of_contents_is_complete() -> None:
    for name in erf.__all__:
        home = import_module(getattr(erf, name).__module__) if hasattr(getattr(erf, name), "__module__") else None
        assert home is None or getattr(home, name) is getattr(erf, name)
        documented = getattr(erf, name).__doc__
        assert documented
        assert len(documented) > 20, name
    assert dir(erf) == sorted(erf.__all__)
    with pytest.raises(AttributeError, match="no attribute 'measured'"):
        _ = erf.measured


def test_type_checkers_see_the_same_names() -> None:
    lines = (ROOT / "erf" / "__init__.py").read_text().splitlines()
    shown = {line.split(" as ")[1] for line in lines if line.startswith("    from erf.")}
    assert shown == set(erf.__all__)


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, erf; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


def test_no_text_names_a_package_index_or_a_path_of_one_machine() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    forbidden = ["pypi." + "org", "file:" + "///opt", "/wo" + "rk/"]
    for name in tracked.splitlines():
        path = ROOT / name
        if path.suffix in (".py", ".md", ".toml", ".yaml", ".cff", ".ipynb", ".in", "") and path.is_file():
            text = path.read_text(encoding="utf-8", errors="ignore")
            assert not [word for word in forbidden if word in text], name
