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


def in_copy(copy: Path, path: str) -> Path:
    """Path of a file in the copy, where the link `erf/models` is a folder."""
    return copy / "erf" / path if path.startswith("models/") else copy / path


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the code with the additions of all examples."""
    ignored = shutil.ignore_patterns("__pycache__", "models", "trained", "gallery")
    shutil.copytree(ROOT / "erf", tmp_path / "erf", ignore=ignored)
    shutil.copytree(ROOT / "models", tmp_path / "erf" / "models", ignore=ignored)
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=ignored)
    for example in EXAMPLES:
        for path, code in example.files.items():
            assert not in_copy(tmp_path, path).exists(), path
            in_copy(tmp_path, path).write_text(code)
        for path, before, after in example.changes:
            text = in_copy(tmp_path, path).read_text()
            assert text.count(f"{before}\n") == 1, f"{path} has not exactly once:\n{before}"
            in_copy(tmp_path, path).write_text(text.replace(f"{before}\n", f"{after}\n"))
    return tmp_path


def test_the_page_has_an_example_of_each_kind() -> None:
    kinds = [example.title.removeprefix("How to add ") for example in EXAMPLES]
    assert kinds == ["a measure", "a rule for an operator", "an image reader", "a network"]


def test_an_example_changes_less_than_ten_lines() -> None:
    for example in EXAMPLES:
        assert 0 < example.changed_lines < 10, example.title


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title.split()[-1])
def test_no_example_works_without_its_changes(
    example: Example, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((AssertionError, ValueError, RuntimeError)):
        exec(example.program, {})


def test_the_examples_work_as_they_are_printed(copy: Path) -> None:
    program = "\n".join(f"print({example.title!r})\n{example.program}" for example in EXAMPLES)
    (copy / "work").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=copy / "work",
        env={**os.environ, "PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stdout + done.stderr


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
