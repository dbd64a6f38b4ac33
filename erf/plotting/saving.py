"""Saving of static figures, with texts taken literally."""

import io
from pathlib import Path

from matplotlib.axis import Tick
from matplotlib.figure import Figure
from matplotlib.text import Text

from erf.text import printable


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure; texts are not parsed as formulas, except tick labels, which show powers of ten."""
    ticks = {label for tick in figure.findobj(Tick) for label in (tick.label1, tick.label2)}
    for text in figure.findobj(Text):
        if text not in ticks:
            text.set_text(printable(text.get_text()))
            text.set_parse_math(False)
    # In memory first: compressors misreport a full disk as an error of their own.
    drawn = io.BytesIO()
    figure.savefig(drawn, format=path.suffix[1:].lower())
    path.write_bytes(drawn.getbuffer())
