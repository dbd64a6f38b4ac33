"""Table of the layers of a network that yield a map, with stride and theoretical receptive field."""

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erf.building.build import Model, build_network
from erf.building.network import Network
from erf.errors import LayerError
from erf.images.size import Size
from erf.text import html_table, text_table
from erf.theory.layers import MappedLayer, match_layers

COLUMNS = ("layer", "module", "output", "stride [px]", "theoretical field [px]", "infinite by")

LEVELS = 2
"""Depth of modules within modules that is listed by default."""


@dataclass(frozen=True, repr=False)
class LayerTable:
    """Layers of a network that yield a map, in the order in which they return; shows itself as a table."""

    network: Network
    shown: tuple[MappedLayer, ...]
    hidden: int
    """Number of deeper layers that are not shown."""
    default: str
    """Layer that is measured where none is named."""
    note: str = ""
    """Why the default layer is not the last one; '' if it is."""

    @classmethod
    def of(cls, network: Network, patterns: Sequence[str] = (), levels: int = LEVELS) -> "LayerTable":
        """List the layers that match one of some patterns, or down to a depth."""
        points = network.mapped_layers()
        chosen = network.default_layer(points)
        wanted = {name for pattern in patterns for name in match_layers(points, pattern)}
        shown = tuple(
            point
            for point in points
            if (point.name in wanted if patterns else point.depth <= levels or point.name == chosen.name)
        )
        if not shown:
            raise LayerError(f"no layer of {network.name} yields a map over the input")
        note = chosen.words if chosen.passed_over else ""
        return cls(network, shown, 0 if patterns else len(points) - len(shown), chosen.name, note)

    @property
    def names(self) -> list[str]:
        return [point.name for point in self.shown]

    @property
    def title(self) -> str:
        """Network and input, as a title of the table."""
        shape = "x".join(map(str, self.network.input_shape))
        return f"{self.network.name}: layers that yield a map of an input {shape}; * is the default"

    @property
    def rows(self) -> list[list[str]]:
        """Cells under `COLUMNS`."""
        return [_row(point, self.default) for point in self.shown]

    def __iter__(self) -> Iterator[MappedLayer]:
        return iter(self.shown)

    def __len__(self) -> int:
        return len(self.shown)

    def __str__(self) -> str:
        table = f"{self.title}\n\n{text_table(COLUMNS, self.rows, left=3)}"
        return f"{table}\n\n{self.note}" if self.note else table

    __repr__ = __str__

    def _repr_html_(self) -> str:
        note = f"<p>{html.escape(self.note)}</p>" if self.note else ""
        return html_table(COLUMNS, self.rows, left=3) + note


def layers(
    model: Model,
    *patterns: str,
    levels: int = LEVELS,
    size: Size | None = None,
    weights: str | Path | None = None,
    model_args: Mapping[str, Any] | None = None,
    depth: int = 0,
    trust: bool = False,
) -> LayerTable:
    """List the layers of a network that yield a map: names for `layer`, strides and theoretical receptive fields.

    Args:
        model: name, module, function that returns a module, or network, as for `erf.compute`.
        patterns: names or shell-style patterns of layers; without any, all down to `levels`.
        levels: depth of modules within modules that is listed.
        size: (height, width) of the input in pixels, or the side of a square; None for the network's own.
        weights: as for `erf.build_network`.
        model_args: options of the network.
        depth: slices of a volume, for networks with 3-D convolutions.
        trust: whether an archive `file.pt2`, which is code, may be opened.

    Returns:
        The table.

    Raises:
        ModelError: the network cannot be built.
        LayerError: no layer yields a map, or matches.

    Example:
        >>> import torch, erf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.MaxPool2d(2))
        >>> print(erf.layers(model, size=(64, 48)))
        Sequential: layers that yield a map of an input 1x64x48; * is the default
        <BLANKLINE>
        layer    module      output   stride [px]  theoretical field [px]  infinite by
        0        Conv2d      4x64x48            1                       3
        1        MaxPool2d   4x32x24            2                       4
        output*  Sequential  4x32x24            2                       4
    """
    network = build_network(model, weights, size=size, model_args=model_args, depth=depth, trust=trust)
    return LayerTable.of(network, patterns, levels)


def _row(point: MappedLayer, default: str) -> list[str]:
    field, traced = point.trace.field, point.trace
    layout = "" if traced.layout.description == "channels first" else f": {traced.layout.description}"
    return [
        f"{point.name}*" if point.name == default else point.name,
        point.kind + (f", called {point.calls} times" if point.calls > 1 else ""),
        "x".join(map(str, point.output_shape[1:])) + layout,
        _along(field.stride),
        "depends on the input" if field.kind == "data-dependent" else _along(field.size),
        ", ".join(field.unbounded_by),
    ]


def _along(values: tuple[float, ...]) -> str:
    """Format values along the axes; a single one if they are equal."""
    words = ["∞" if math.isinf(value) else f"{value:g}" for value in values]
    return words[0] if len(set(words)) == 1 else " × ".join(words)
