"""The last step of every static picture: its texts are taken as they are, and it is written."""

import io
from pathlib import Path

from matplotlib.axis import Tick
from matplotlib.figure import Figure
from matplotlib.text import Text

from erf.text import printable


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure in which no text is a formula but those at ticks, which show powers of ten."""
    ticks = {label for tick in figure.findobj(Tick) for label in (tick.label1, tick.label2)}
    for text in figure.findobj(Text):
        if text not in ticks:
            text.set_text(printable(text.get_text()))
            text.set_parse_math(False)
    # In memory first: compressors take a disk that fills up for an error of their own.
    drawn = io.BytesIO()
    figure.savefig(drawn, format=path.suffix[1:].lower())
    path.write_bytes(drawn.getbuffer())
