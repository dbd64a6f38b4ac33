"""Examples in the docstrings of what users call first; each runs in an empty folder."""

import doctest
from pathlib import Path

import pytest

import erf

EXAMPLES = [name for name in erf.__all__ if ">>>" in (getattr(erf, name).__doc__ or "")]


def test_twenty_names_have_an_example() -> None:
    assert len(EXAMPLES) >= 20


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_of_a_docstring_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (test,) = (test for test in doctest.DocTestFinder(recurse=False).find(getattr(erf, name), name, globs={}))
    found = doctest.DocTestRunner(optionflags=doctest.REPORT_ONLY_FIRST_FAILURE).run(test)
    assert found.attempted > 0
    assert found.failed == 0
