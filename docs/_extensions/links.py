"""What the site takes from outside this folder, links that differ from the repository's, and links of pictures."""

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment

import erf

DOCS = Path(__file__).parent.parent
ROOT = DOCS.parent
COPIES = {
    **{path: DOCS / "notebooks" / path.name for path in (ROOT / "notebooks").glob("*.ipynb")},
    ROOT / "CONTRIBUTING.md": DOCS / "contributing.myst",
    ROOT / "CHANGELOG.md": DOCS / "changes.myst",
}
NOTES = """
```{toctree}
:hidden:
:glob:

0*
```
"""


def _copy(app: Sphinx, config: Config) -> None:
    """Copy notebooks and root pages next to the others, because Sphinx reads a single folder."""
    (DOCS / "notebooks").mkdir(exist_ok=True)
    for source, copy in COPIES.items():
        text = source.read_text(encoding="utf-8")
        for there, here in (("](docs/", "]("), ("](../docs/", "](../"), ("](README.md#installation", "](index.md")):
            text = text.replace(there, here)
        if not copy.exists() or copy.read_text(encoding="utf-8") != text:
            copy.write_text(text, encoding="utf-8")


def _link(app: Sphinx, page: str, source: list[str]) -> None:
    """Let links to notebooks and examples lead to their pages, and list the decision notes in the sidebar."""
    source[0] = source[0].replace("](../notebooks/", "](notebooks/")
    source[0] = re.sub(r"\]\(examples/(plot_\w+)\.py\)", r"](auto_examples/\1.rst)", source[0])
    if page == "decisions/README":
        source[0] += NOTES


def _public_name(app: Sphinx, env: BuildEnvironment, node: pending_xref, child: nodes.Element) -> Any:
    """Resolve a type such as `erf.results.erf.ERF` to `erf.ERF`, under which it is documented."""
    name = node.get("reftarget", "").rpartition(".")[2]
    if node.get("refdomain") != "py" or name not in erf.__all__:
        return None
    domain = env.get_domain("py")
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", f"erf.{name}", node, child)


def _enlarge(app: Sphinx, document: nodes.document, page: str) -> None:
    """Let pictures lead to themselves at full size, and describe those that cells have drawn."""
    if page == "auto_examples/index":  # thumbnails, which lead to the examples
        return
    for image in document.findall(nodes.image):
        image.setdefault("alt", "Picture that the cell above has drawn")
        image.setdefault("scale", 100)  # Sphinx links pictures of a given scale


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the rules."""
    app.connect("config-inited", _copy)
    app.connect("source-read", _link)
    app.connect("missing-reference", _public_name)
    app.connect("doctree-resolved", _enlarge)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
