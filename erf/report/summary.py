"""Summary of an ERF: a few aligned lines in a terminal; picture and numbers in a notebook."""

import base64
from dataclasses import dataclass
from textwrap import indent

import numpy as np

from erf.comparison import measure
from erf.plotting import plot
from erf.plotting.panels import describe_field
from erf.results import ERF
from erf.text import html_table, printable

_MEASURES = ("r50", "r90")


@dataclass(frozen=True, repr=False)
class Summary:
    """Summary of an ERF; shows itself in a terminal and in a notebook."""

    erf: ERF

    @property
    def lines(self) -> list[tuple[str, str]]:
        """Names and values."""
        origin, size = self.erf.provenance, "x".join(map(str, self.erf.provenance.input_shape))
        lines = [
            ("network", f"{origin.title}, {origin.weights_text}"),
            ("unit", f"{origin.target}, input {size}"),
            ("images", self._images()),
            ("theoretical field", describe_field(self.erf)),
        ]
        if self.erf.definition == "signed":  # negative values have no centre of mass and no size
            return lines
        return [*lines, ("centroid", self._centroids()), ("size", self._sizes())]

    def _images(self) -> str:
        counts = ", ".join(f"{subset} {self.erf.count(subset)}" for subset in self.erf.subsets if subset != "all")
        failed = f"; {len(self.erf.failures)} could not be used" if self.erf.failures else ""
        return f"{self.erf.count()}" + (f" ({counts})" if counts else "") + failed

    def _centroids(self) -> str:
        """Shift of the centroid from the unit's centre, by subset."""
        y0, x0 = self.erf.provenance.unit_center
        shifts = []
        for subset in self.erf.subsets:
            y, x = self.erf[subset].centroid
            shifts.append(f"{subset} x {x - x0:+.1f}, y {y - y0:+.1f} px")
        if not any(np.isfinite(self.erf[subset].centroid).all() for subset in self.erf.subsets):
            return "none: the maps are zero everywhere"
        return "; ".join(shifts) + " from the unit"

    def _sizes(self) -> str:
        found = [measure(self.erf, name) for name in _MEASURES]
        return ", ".join(f"{one.name} {one}" for one in found) + f", of the {self.erf.definition} gradient"

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.lines)
        body = "\n".join(f"{name:<{width}}  {value}" for name, value in self.lines)
        return printable(f"ERF\n{indent(body, '  ')}")

    __repr__ = __str__

    def to_html(self) -> str:
        """Return maps, curves and the lines as HTML."""
        picture = base64.b64encode(plot(self.erf, subsets=["all"])._repr_png_()).decode()
        image = f'<img alt="map and curves" style="max-width:100%" src="data:image/png;base64,{picture}">'
        return f"<div>{html_table(('ERF', ''), self.lines, left=2)}{image}</div>"

    def _repr_html_(self) -> str:
        return self.to_html()


def summarise(erf: ERF) -> Summary:
    """Summarise an ERF.

    Example:
        >>> import torch, erf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 3, padding=1))
        >>> result = erf.compute(model, n=4, size=(64, 48), layer="1", device="cpu", progress=False)
        >>> print(erf.summarise(result).lines[3])
        ('theoretical field', '5 × 5 px')
    """
    return Summary(erf)
