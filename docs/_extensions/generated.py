"""Directive whose content is Markdown that a function writes."""

from collections.abc import Callable

from docutils import nodes
from docutils.parsers.rst import Directive
from sphinx.util.docutils import SphinxDirective


def directive(write: Callable[..., str]) -> type[Directive]:
    """Return a directive that shows the Markdown of `write`, headings included; its content are the arguments."""

    class Generated(SphinxDirective):
        has_content = True

        def run(self) -> list[nodes.Node]:
            return self.parse_text_to_nodes(write(*self.content), allow_section_headings=True)

    return Generated


def table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
