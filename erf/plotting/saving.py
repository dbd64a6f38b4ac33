"""Static figures, with texts taken literally, and saving of them."""

import io
from pathlib import Path
from typing import TypeVar

from matplotlib.axis import Tick
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as MatplotlibFigure
from matplotlib.text import Text

from erf.text import printable

F = TypeVar("F", bound=MatplotlibFigure)

PICTURES = (".png", ".svg", ".pdf")
"""Suffixes of static figures."""


class Figure(MatplotlibFigure):
    """Figure that shows itself in a notebook, without pyplot."""

    def __init__(self, size: tuple[float, float]) -> None:
        """Make a figure of (width, height) in inches."""
        super().__init__(figsize=size, dpi=120, layout="constrained")
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        return drawn(self, "png")


def literal(figure: F) -> F:
    """Let texts be shown as they are, not parsed as formulas, except tick labels, which show powers of ten."""
    artists = figure.findobj()
    ticks = {label for tick in artists if isinstance(tick, Tick) for label in (tick.label1, tick.label2)}
    for text in artists:
        if isinstance(text, Text) and text not in ticks:
            text.set_text(printable(text.get_text()))
            text.set_parse_math(False)
    return figure


def drawn(figure: MatplotlibFigure, kind: str) -> bytes:
    """Return a figure as the content of a PNG, SVG or PDF file."""
    content = io.BytesIO()
    figure.savefig(content, format=kind)
    return content.getvalue()


def save_figure(figure: MatplotlibFigure, path: Path) -> None:
    """Write a figure with literal texts."""
    path.write_bytes(drawn(literal(figure), path.suffix[1:].lower()))  # compressors misreport a full disk
