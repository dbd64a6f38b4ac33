"""HTML page of a report: template, style, script, and the content as embedded JSON."""

import json
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from plotly.offline import get_plotlyjs

from erf.comparison import ComparisonTable
from erf.errors import InputError
from erf.report.content import describe
from erf.storage.files import check_free, complete_file
from erf.text import for_html, for_script

SUFFIXES = (".html", ".htm")


def write_report(table: ComparisonTable, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write a page about the ERFs of a table, of one input size, and their measures.

    Everything is within the file, and whatever comes from files is escaped. Raises `InputError` for ERFs of several
    sizes and `OutputError` for a path that cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: suffix '{path.suffix}' not known; expected .html")
    check_free(path, overwrite)
    with complete_file(path) as part:
        part.write_text(render_page(describe(table)), encoding="utf-8")
    return path


def render_page(content: dict[str, Any]) -> str:
    """Render the page as text."""
    parts = files("erf.report")
    template = Template((parts / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=for_html(" · ".join(content["labels"])),
        style=(parts / "page.css").read_text(encoding="utf-8"),
        script=(parts / "page.js").read_text(encoding="utf-8"),
        plotly=get_plotlyjs(),
        content=_json(content),
    )


def _json(content: dict[str, Any]) -> str:
    """Encode JSON so that it cannot close the HTML element that contains it."""
    return for_script(json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")))
