"""Figures of erf in the gallery: sphinx-gallery collects those of pyplot only."""

from pathlib import Path
from typing import Any

from erf.plotting.saving import Figure


def collect(block: Any, variables: dict[str, Any], settings: dict[str, Any]) -> str:
    """Save the figure that the last line of a block returns, if it is one of erf, and return its directive."""
    shown = variables["example_globals"].get("___")
    if not isinstance(shown, Figure):
        return ""
    variables["example_globals"]["___"] = None
    path = Path(next(variables["image_path_iterator"]))
    shown.savefig(path)
    source = path.relative_to(settings["src_dir"]).as_posix()
    return f"\n.. image:: /{source}\n   :class: sphx-glr-single-img\n   :alt: Maps and curves\n"
