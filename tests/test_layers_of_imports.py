"""The import order of docs/design.md, held against the code."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

LAYER = {
    "erf.errors": 0,
    "erf.definitions": 0,
    "erf.process": 0,
    "erf.profiling": 0,
    "erf.grid": 0,
    "erf.pvalues": 0,
    "erf.text": 0,
    "erf.disk": 1,
    "erf.images": 1,
    "erf.geometry": 1,
    "erf.result": 1,
    "erf.devices": 1,
    "erf.layers": 1,
    "erf.arguments": 1,
    "erf.backward": 1,
    "erf.spill": 1,
    "erf.projections": 1,
    "erf.gradients": 2,
    "erf.operators": 2,
    "erf.units": 2,
    "erf.measures": 2,
    "erf.moments": 2,
    "erf.outputs": 2,
    "erf.storage": 2,
    "erf.checkpoint": 2,
    "erf.examples": 2,
    "erf.evaluation": 2,
    "erf.tracing": 3,
    "erf.methods": 3,
    "erf.diagnosis": 3,
    "erf.intervals": 3,
    "erf.merging": 3,
    "erf.staging": 3,
    "erf.series": 3,
    "erf.training": 3,
    "erf.windows": 4,
    "erf.bands": 4,
    "erf.tapping": 4,
    "erf.settings": 4,
    "erf.attribution": 4,
    "erf.comparison": 4,
    "erf.plotting": 4,
    "erf.privacy": 4,
    "erf.passes": 5,
    "erf.theory": 5,
    "erf.benchmark": 5,
    "erf.report": 5,
    "erf.uploads": 2,
    "erf.way": 3,
    "erf.batches": 6,
    "erf.self_check": 7,
    "erf.run": 7,
    "erf.engine": 8,
    "erf": 9,
    "erf.cli": 10,
    "erf.__main__": 11,
}
NEEDS_TORCH = {
    "erf.arguments",
    "erf.layers",
    "erf.gradients",
    "erf.operators",
    "erf.tracing",
    "erf.bands",
    "erf.spill",
    "erf.tapping",
    "erf.attribution",
    "erf.theory",
    "erf.diagnosis",
    "erf.methods",
    "erf.windows",
    "erf.moments",
    "erf.projections",
    "erf.backward",
    "erf.devices",
    "erf.engine",
    "erf.run",
    "erf.batches",
    "erf.self_check",
    "erf.uploads",
    "erf.way",
    "erf.passes",
    "erf.benchmark",
    "erf.merging",
    "erf.models",
    "erf.training",
}

SOURCES = sorted(path for folder in ("erf", "models") for path in (ROOT / folder).rglob("*.py"))
SOURCES = [path for path in SOURCES if "erf/models" not in path.as_posix()]


def room(module: str) -> str:
    """The entry of the table to which a module belongs: itself, or the package below `erf` that holds it."""
    return ".".join(module.split(".")[:2])


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = ("erf", *parts) if parts[0] == "models" else parts
    return ".".join(part for part in parts if part != "__init__")


def imports(path: Path) -> set[str]:
    """Absolute names of everything a file imports, also inside functions."""
    found = set()
    package = module_name(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            found.add(".".join([*base, *([node.module] if node.module else [])]))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_a_module_imports_only_from_rows_above(path: Path) -> None:
    own = room(module_name(path))
    for name in imports(path):
        if not name.startswith("erf") or room(name) == own:
            continue
        if own == "erf.models":
            assert name == "erf.errors", f"{path} imports {name}; models know nothing else of erf than its errors"
            continue
        if room(name) == "erf.models":
            assert own == "erf.cli", f"{path} imports {name}; only the command line sees models"
        elif own != "erf":  # the table of contents names everything, for type checkers
            assert LAYER[room(name)] < LAYER[own], f"{path} imports {name}"


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_what_is_right_of_the_file_needs_no_torch(path: Path) -> None:
    own = room(module_name(path))
    if own not in NEEDS_TORCH and own != "erf.cli":
        assert not any(name.split(".")[0] in ("torch", "captum") for name in imports(path))


def test_every_module_has_a_row() -> None:
    assert {room(module_name(path)) for path in SOURCES} - {"erf.models"} == set(LAYER)


def test_the_design_page_shows_the_same_order() -> None:
    page = (ROOT / "docs" / "design.md").read_text()
    for module, layer in LAYER.items():
        if module != "erf.__main__":
            row = next(line for line in page.splitlines() if line.startswith(f"| {layer} |"))
            assert f"`{module}`" in row
