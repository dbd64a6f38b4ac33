"""Theoretical receptive field of one unit, compared with the gradients of noise."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erf.box import Box
from erf.building import Model, Network, build_network
from erf.building.network import SMALLER, Warn, warn_of_assumption
from erf.gradients.probe import Probe, border_layer, probe, theoretical_box
from erf.gradients.units import UnitChoice
from erf.images.size import Size
from erf.network.devices import memory_errors
from erf.network.layers import Unit
from erf.text import html_table
from erf.theory.layers import MappedLayer
from erf.theory.tracing import Trace

SHARE = 0.95
"""Share of the gradient that overlapping tiles keep, by default."""


@dataclass(frozen=True, repr=False)
class FieldReport:
    """Theoretical receptive field of a unit, and the part that gradients of noise reach; shows itself as lines."""

    network: Network
    layer: str
    unit: Unit
    trace: Trace
    probe: Probe
    border: MappedLayer | None
    """First layer whose field is larger than the input."""
    share: float = SHARE

    @property
    def size(self) -> tuple[float, ...]:
        """(height, width) in pixels that the unit sees; infinite where an operator is global."""
        field = self.trace.field
        return field.extent(self.unit) if field.kind == "finite" else field.size

    @property
    def stride(self) -> tuple[float, ...]:
        """(y, x) in pixels between neighbouring units."""
        return self.trace.field.stride

    @property
    def center(self) -> tuple[float, ...]:
        """(y, x) of the unit projected to the input, in pixels."""
        return self.trace.field.center(self.unit)

    @property
    def box(self) -> Box[int]:
        """The field inside the input."""
        return theoretical_box(self.trace, self.unit, self.network.size)

    @property
    def holds(self) -> bool:
        """Whether the gradients of noise lie inside the field."""
        return self.probe.lies_in(self.box)

    @property
    def title(self) -> str:
        """Network, layer, unit and input."""
        shape = "x".join(map(str, self.network.input_shape))
        return f"{self.network.name}, layer {self.layer}, unit {','.join(map(str, self.unit))}, input {shape}"

    @property
    def lines(self) -> list[tuple[str, str]]:
        """Names and values."""
        field, traced = self.trace.field, self.trace
        lines = [
            ("map", f"{'x'.join(map(str, traced.feature_shape[1:]))} of {traced.feature_shape[0]} channels"),
            ("read as", traced.layout.description),
            ("stride", _px(self.stride)),
            ("centre of unit 0", _px(field.offset)),
            ("centre of this unit", _px(self.center)),
            ("theoretical field", self._describe_field()),
        ]
        if field.unbounded_by:
            lines.append(("infinite by", ", ".join(field.unbounded_by)))
        reached = "zero everywhere" if self.probe.box is None else _range(self.probe.box)
        return [*lines, ("inside the input", _range(self.box)), ("gradients reach", reached)]

    def _describe_field(self) -> str:
        kind = self.trace.field.kind
        if kind == "data-dependent":
            return "no bound: positions depend on the input"
        return "infinite: every pixel" if kind == "infinite" else _px(self.size)

    @property
    def advice(self) -> list[str]:
        """Remarks on tiles and borders; none where there is no gradient, or it contradicts the theory."""
        if self.probe.box is None or not self.holds:
            return []
        reach = self.probe.reach(self.share)
        exact = f", {max(self.trace.field.size) - 1:g} px all of it" if self.trace.field.kind == "finite" else ""
        found = [
            f"tiles: an overlap of {2 * reach} px ({reach} px on each side) keeps {100 * self.share:g} % of this "
            f"gradient{exact}"
        ]
        if self.probe.touches_border:
            found.append("border: the field touches the edge of this input; it would be larger on a larger one")
        if self.border is not None:
            found.append(
                f"border layer: {self.border.name} is the first whose field is larger than the input; all units of "
                "later layers see the border"
            )
        return found

    def __str__(self) -> str:
        body = [f"  {name:<22}{words}" for name, words in self.lines]
        return "\n".join([self.title, *body, *self.advice])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table((self.title, ""), [*self.lines, *(("", words) for words in self.advice)], left=2)


def receptive_field(
    model: Model,
    layer: str = "",
    unit: UnitChoice = "center",
    *,
    share: float = SHARE,
    size: Size | None = None,
    weights: str | Path | None = None,
    seed: int | None = None,
    model_args: Mapping[str, Any] | None = None,
    depth: int = 0,
    trust: bool = False,
    warn: Warn = warn_of_assumption,
) -> FieldReport:
    """Follow the theoretical receptive field of a unit through the operators that the network runs, and check it.

    Args:
        model: name, module, function that returns a module, or network, as for `erf.compute`.
        layer: name of the layer; '' for the default layer.
        unit: choice of one unit.
        share: share of the gradient to keep, for the advice on overlapping tiles.
        size: (height, width) of the input in pixels, or the side of a square; None for the network's own.
        weights: as for `erf.build_network`.
        seed: seed of untrained weights; None for 0, or that of a network of `build_network`.
        model_args: options of the network.
        depth: slices of a volume, for networks with 3-D convolutions.
        trust: whether an archive `file.pt2`, which is code, may be opened.
        warn: called with one line where a value is assumed.

    Returns:
        The field, the part of it that gradients of noise reach, and advice.

    Raises:
        ModelError: the network cannot be built.
        LayerError: the network has no such layer or unit.
        InsufficientMemoryError: a pass does not fit into memory.

    Example:
        >>> import torch, erf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.MaxPool2d(2))
        >>> found = erf.receptive_field(model, "1", size=(64, 48))
        >>> found.size, found.stride, found.box, found.holds
        ((4.0, 4.0), (2.0, 2.0), Box(top=31, left=23, bottom=35, right=27), True)
    """
    network = build_network(
        model, weights, seed=seed, size=size, model_args=model_args, depth=depth, trust=trust, warn=warn
    )
    return field_of(network, layer, unit, share, warn)


def field_of(
    network: Network,
    layer: str = "",
    unit: UnitChoice = "center",
    share: float = SHARE,
    warn: Warn = warn_of_assumption,
) -> FieldReport:
    """Do the same as `receptive_field` for a network that is built."""
    with memory_errors(SMALLER):
        points = network.mapped_layers()
        name, traced, place = network.locate(layer, unit, points, warn)
        found = probe(network.model, name, place, traced, network.input_shape, network.arguments)
    return FieldReport(network, name, place, traced, found, border_layer(points, network.size), share)


def _px(values: tuple[float, ...]) -> str:
    return f"{' × '.join('∞' if math.isinf(value) else f'{value:g}' for value in values)} px"


def _range(box: Box[int]) -> str:
    return f"rows {box.top} to {box.bottom - 1}, columns {box.left} to {box.right - 1}"
