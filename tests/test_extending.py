"""The worked examples of docs/extending.md, carried out in a copy of the code."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "extending.md").read_text()


@dataclass(frozen=True)
class Example:
    """One section of the page: new files, changes to existing ones, and a program that uses the addition."""

    title: str
    files: dict[str, str]
    changes: list[tuple[str, str, str]]
    """Path of a file, lines of it, and the lines that replace them."""
    changed_lines: int
    program: str


def read_example(section: str) -> Example:
    title = section.splitlines()[0]
    blocks = re.findall(r"^```(\w+) ?(.*)\n((?:.*\n)*?)^```$", section, re.MULTILINE)
    files = {path: code for kind, path, code in blocks if kind == "python" and path}
    programs = [code for kind, path, code in blocks if kind == "python" and not path]
    changes, count = [], 0
    for path, diff in ((path, code) for kind, path, code in blocks if kind == "diff"):
        for hunk in diff.split("@@\n"):
            lines = hunk.splitlines()
            before = "\n".join(line[1:] for line in lines if line[0] != "+")
            after = "\n".join(line[1:] for line in lines if line[0] != "-")
            changes.append((path, before, after))
            count += sum(line[0] in "+-" for line in lines)
    return Example(title, files, changes, count, programs[-1])


EXAMPLES = [
    read_example(section) for section in re.split(r"^## ", PAGE, flags=re.MULTILINE) if section.startswith("How")
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the code, without the trained weights."""
    ignored = shutil.ignore_patterns("__pycache__", "models", "*.safetensors")
    shutil.copytree(ROOT / "erf", tmp_path / "erf", ignore=ignored)
    shutil.copytree(
        ROOT / "models", tmp_path / "erf" / "models", ignore=shutil.ignore_patterns("__pycache__", "trained")
    )
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("gallery"))
    return tmp_path


def in_copy(copy: Path, path: str) -> Path:
    """Path of a file in the copy, where the link `erf/models` is a folder."""
    return copy / "erf" / path if path.startswith("models/") else copy / path


def test_the_page_has_an_example_of_each_kind() -> None:
    kinds = [example.title.removeprefix("How to add ") for example in EXAMPLES]
    assert kinds == ["a measure", "a rule for an operator", "an image reader", "a network"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title.split()[-1])
def test_an_example_works_as_it_is_printed(example: Example, copy: Path) -> None:
    assert 0 < example.changed_lines < 10
    work = copy / "work"
    work.mkdir()

    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", example.program]
        return subprocess.run(
            command, cwd=work, env={**os.environ, "PYTHONPATH": str(copy)}, capture_output=True, text=True, check=False
        )

    assert run().returncode, "the example works without its changes, so that it shows nothing"
    for path, code in example.files.items():
        assert not in_copy(copy, path).exists(), path
        in_copy(copy, path).write_text(code)
    for path, before, after in example.changes:
        text = in_copy(copy, path).read_text()
        assert text.count(f"{before}\n") == 1, f"{path}:\n{before}"
        in_copy(copy, path).write_text(text.replace(f"{before}\n", f"{after}\n"))
    done = run()
    assert not done.returncode, done.stderr


def test_examples_keep_the_style_of_the_code(tmp_path: Path) -> None:
    for example in EXAMPLES:
        for path, code in example.files.items():
            new = tmp_path / path
            new.parent.mkdir(parents=True, exist_ok=True)
            new.write_text(code)
    options = ["--config", str(ROOT / "pyproject.toml")]
    for command in (["check", *options], ["format", "--check", *options]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert not done.returncode, done.stdout
