"""The import order of docs/design.md, compared with the code, and the parts that need no PyTorch."""

import ast
import os
import subprocess
import sys
from dataclasses import replace
from graphlib import TopologicalSorter
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import erf

ROOT = Path(__file__).parent.parent

ORDER = {
    "erf.errors": 0,
    "erf.definitions": 0,
    "erf.text": 0,
    "erf.process": 0,
    "erf.profiling": 0,
    "erf.box": 0,
    "erf.images": 1,
    "erf.network": 1,
    "erf.results": 1,
    "erf.theory": 2,
    "erf.measures": 2,
    "erf.datasets": 2,
    "erf.gradients": 3,
    "erf.storage": 3,
    "erf.uncertainty": 3,
    "erf.accumulation": 4,
    "erf.building": 4,
    "erf.comparison": 4,
    "erf.evaluation": 4,
    "erf.engine": 5,
    "erf.importing": 5,
    "erf.training": 5,
    "erf.plotting": 5,
    "erf.checks": 6,
    "erf.explorer": 6,
    "erf.frames": 5,
    "erf.protocols": 1,
    "erf.report": 6,
    "erf.tracking": 6,
    "erf": 7,
    "erf.cli": 8,
    "erf.__main__": 9,
}
"""Rows of the table; a module imports only from rows above its own."""

WITH_TORCH = {
    "erf.network",
    "erf.theory",
    "erf.gradients",
    "erf.accumulation.running",
    "erf.accumulation.stored",
    "erf.report.atlas",
    "erf.building",
    "erf.checks",
    "erf.explorer",
    "erf.engine",
    "erf.training",
    "erf.tracking",
    "erf.models",
}
"""Packages and modules that import PyTorch; no other one does, not even indirectly."""

METHODS = ("erf.results.erf", "erf.comparison.table", "erf.protocols.protocol")
"""Modules of results whose methods call public functions of `erf`, such as `result.plot()`."""

SEE_MODELS = ("erf.building", "erf.cli", "erf")

SOURCES = sorted(path for folder in ("erf", "models") for path in (ROOT / folder).rglob("*.py"))
SOURCES = [path for path in SOURCES if "erf/models" not in path.as_posix()]


def package(module: str) -> str:
    """The row of the table to which a module belongs: itself, or the package below `erf` that holds it."""
    return ".".join(module.split(".")[:2])


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("erf", *parts) if parts[0] == "models" else parts
    return ".".join(part for part in parts if part != "__init__")


FILES = {module_name(path): path for path in SOURCES}


def imports(path: Path, *, for_types: bool = True) -> set[str]:
    """Absolute names of all modules that a file imports, also inside functions, and also submodules by name."""
    found = set()
    here = module_name(path).split(".")
    here = here if path.name == "__init__.py" else here[:-1]
    tree = ast.parse(path.read_text())
    if not for_types:
        tree.body = [
            node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] if node.level else []
            name = ".".join([*base, *([node.module] if node.module else [])])
            found |= {name, *(f"{name}.{alias.name}" for alias in node.names if f"{name}.{alias.name}" in FILES)}
    return found


def reached(module: str) -> set[str]:
    """All modules that importing a module may load, directly or not, with the packages that hold them."""
    found, left = set(), [module]
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        parts = name.split(".")
        left += [".".join(parts[:end]) for end in range(2, len(parts))]  # `erf` itself resolves its names on first use
        if name in FILES and name != "erf":
            left += imports(FILES[name])
    return found


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_module_imports_only_from_rows_above(path: Path) -> None:
    own = package(module_name(path))
    for name in imports(path):
        if not name.startswith("erf") or package(name) == own:
            continue
        if module_name(path) in METHODS and (name == "erf" or name not in imports(path, for_types=False)):
            continue
        if own == "erf.models":
            assert name == "erf.errors", f"{path} imports {name}; models know nothing else of erf than its errors"
            continue
        if package(name) == "erf.models":
            assert own in SEE_MODELS, f"{path} imports {name}; only {SEE_MODELS} see models"
        elif own != "erf":  # the table of contents names everything, for type checkers
            assert ORDER[package(name)] < ORDER[own], f"{path} imports {name}"


def test_no_module_imports_itself_indirectly() -> None:
    """A cycle raises `graphlib.CycleError`; packages are left out, because they only list names of their modules."""
    modules = {name: path for name, path in FILES.items() if path.name != "__init__.py"}
    graph = {
        name: {other for other in imports(path, for_types=False) if other in modules} for name, path in modules.items()
    }
    assert set(TopologicalSorter(graph).static_order()) == set(modules)


def needs_torch(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in WITH_TORCH)


@pytest.mark.parametrize("module", [name for name in FILES if not needs_torch(name) and package(name) != "erf.cli"])
def test_other_modules_never_reach_torch(module: str) -> None:
    if module not in ("erf", "erf.__main__"):
        loaded = {name.split(".")[0] for name in reached(module)}
        assert not loaded & {"torch", "captum", "timm"}, module


def test_every_module_has_a_row() -> None:
    assert {package(module_name(path)) for path in SOURCES} - {"erf.models"} == set(ORDER)


def test_the_root_has_few_loose_modules() -> None:
    assert len(list((ROOT / "erf").glob("*.py"))) <= 8


def test_the_design_page_shows_the_same_order() -> None:
    page = (ROOT / "docs" / "design.md").read_text()
    for module, row in ORDER.items():
        if module != "erf.__main__":
            line = next(line for line in page.splitlines() if line.startswith(f"| {row} |"))
            assert f"`{module}`" in line


WITHOUT_TORCH = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "captum", "timm", "torchvision"):
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Blocked())
import erf
from erf.cli import main

one, two = erf.load("one.h5"), erf.load("two.h5")
merged = erf.merge([one, two])
erf.save(merged, "merged.h5")
erf.save(erf.anonymise(merged), "anonymous.h5")
erf.compare(merged)
erf.plot([one, two], "picture.png")
for command in (
    "show merged.h5",
    "merge one.h5 two.h5 -o both.h5",
    "compare one.h5 two.h5 --resamples 100 --allow-different",
    "plot merged.h5 -o plot.png",
    "report merged.h5 -o report.html --resamples 100",
    "anonymise merged.h5 -o nobody.h5",
):
    sys.argv = ["erf", *command.split()]
    try:
        main()
    except SystemExit as end:
        assert not end.code, command
assert "torch" not in sys.modules
"""


def test_files_are_read_measured_merged_and_drawn_without_torch(tmp_path: Path) -> None:
    network, rng = nn.Sequential(nn.Conv2d(1, 2, 5, padding=2)), np.random.default_rng(0)
    for name in ("one", "two"):
        arrays = [rng.standard_normal((1, 16, 12)).astype(np.float32) for _ in range(3)]
        result = erf.compute(network, erf.from_arrays(arrays), layer="0", device="cpu")
        records = tuple(
            replace(record, id=f"{name} {record.id}", path=f"{name} {record.path}") for record in result.images
        )
        erf.save(replace(result, images=records), tmp_path / f"{name}.h5")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
