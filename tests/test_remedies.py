"""Remedies of errors: Python's names in the library, options and commands on the command line."""

import ast
import inspect
import re
from pathlib import Path

import pytest

from erf.cli import app
from erf.cli.remedies import COMMANDS, OPTIONS, message_of, translate
from erf.errors import ErfError, OutputExistsError, UnfinishedRunError

ROOT = Path(__file__).parent.parent

LIBRARY = [
    path
    for folder in ("erf", "models")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if not {"cli", "erf/models"} & {path.relative_to(ROOT).parts[1], "/".join(path.relative_to(ROOT).parts[:2])}
]


COMMANDS_OF_FIELDS = ROOT / "erf/explorer/reproduce.py"
"""The one module of the library whose task is to write a command line, for the reader of a page."""


def texts(path: Path) -> list[str]:
    """All strings of a file, those of f-strings in parts."""
    tree = ast.parse(path.read_text())
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def names_of_options() -> set[str]:
    found = set()
    for command in app.registered_commands:
        assert command.callback
        for one in inspect.signature(command.callback).parameters.values():
            option = getattr(one.annotation, "__metadata__", (None,))[0]
            declared = getattr(option, "param_decls", None) or (f"--{one.name.replace('_', '-')}",)
            found |= {name for text in declared for name in text.split("/")}
    return found


@pytest.mark.parametrize(
    "path", [path for path in LIBRARY if path != COMMANDS_OF_FIELDS], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_the_library_names_no_option_and_no_command(path: Path) -> None:
    for text in texts(path):
        assert not re.search(r"(?<![\w-])--[a-z]{2}", text), text
        assert not re.search(r"`erf [a-z]|\bthe same command\b", text), text


def test_every_option_of_a_written_command_exists() -> None:
    written = {text for text in texts(COMMANDS_OF_FIELDS) if text.startswith("--") and len(text) > 2}
    assert {"--size", "--unit"} <= written <= names_of_options()


def test_every_option_of_a_remedy_exists() -> None:
    assert set(OPTIONS.values()) <= names_of_options()
    commands = {command.callback.__name__ for command in app.registered_commands if command.callback}
    named = {name for words in COMMANDS.values() for name in re.findall(r"`erf (\w+)", words)}
    assert named <= commands


@pytest.mark.parametrize(
    ("remedy", "words"),
    [
        ("use a smaller `size` or `micro_batch`", "use a smaller --size or --micro-batch"),
        ("start again with `overwrite=True`", "start again with --overwrite"),
        ("train with `where=view=CC`", "train with --where view=CC"),
        ("`erf.layers` lists them", "`erf layers` lists them"),
        ("look at `something`", "look at `something`"),
    ],
)
def test_remedies_are_translated(remedy: str, words: str) -> None:
    assert translate(remedy) == words


def test_names_of_the_user_are_not_translated() -> None:
    error = OutputExistsError("`size` exists")
    assert message_of(error) == "`size` exists; choose another name, or ask for --overwrite"
    assert str(error) == "`size` exists; choose another name, or ask for `overwrite=True`"


def test_a_remedy_of_its_own_replaces_that_of_the_class() -> None:
    assert str(UnfinishedRunError("half", remedy="wait")) == "half; wait"
    assert str(ErfError("half")) == "half"


def test_all_errors_of_the_library_are_erf_errors() -> None:
    import erf.errors
    from erf.models import ModelError, WeightsError

    kinds = [kind for kind in vars(erf.errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert all(issubclass(kind, (ErfError, Warning)) for kind in (*kinds, ModelError, WeightsError))
