"""Figures of erf in the gallery: sphinx-gallery collects those of pyplot only."""

from pathlib import Path
from typing import Any

from sphinx_gallery.scrapers import figure_rst

from erf.plotting.saving import Figure


def collect(block: Any, variables: dict[str, Any], settings: dict[str, Any]) -> str:
    """Save the figure that the last line of a block returns, if it is one of erf, and return its directive."""
    shown = variables["example_globals"].get("___")
    if not isinstance(shown, Figure):
        return ""
    variables["example_globals"]["___"] = None
    path = Path(next(variables["image_path_iterator"]))
    shown.savefig(path)
    return str(figure_rst([str(path)], settings["src_dir"]))
