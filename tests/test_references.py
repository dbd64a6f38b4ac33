"""Every paper cited by its arXiv number in code and documentation has an entry in docs/references.bib."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_cited_papers_have_an_entry() -> None:
    known = set(re.findall(r"eprint\s*=\s*\{([\d.]+)\}", (ROOT / "docs" / "references.bib").read_text()))
    pages = [path for folder in ("erf", "models", "docs") for path in (ROOT / folder).rglob("*.*")]
    texts = [path.read_text() for path in pages if path.suffix in (".py", ".md")]
    cited = {number for text in texts for number in re.findall(r"\b\d{4}\.\d{5}\b|\b1[0-4]\d{2}\.\d{4}\b", text)}
    assert len(cited) > 20
    assert cited <= known


def test_entries_are_complete_and_distinct() -> None:
    entries = re.findall(r"@\w+\{(\w+),(.*?)\n\}", (ROOT / "docs" / "references.bib").read_text(), re.DOTALL)
    assert len({key for key, _ in entries}) == len(entries)
    for key, fields in entries:
        assert all(re.search(rf"\b{name}\s*=", fields) for name in ("title", "author", "year")), key
