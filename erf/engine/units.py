"""Measured units: the units of a network that get an ERF each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from erf.engine.settings import Settings
from erf.errors import InputError, LayerError
from erf.gradients.autograd import EDGES, Target, window_range
from erf.gradients.units import center_unit, resolve_units
from erf.network.layers import Unit
from erf.theory.tracing import Trace, trace


@dataclass(frozen=True, eq=False)
class MeasuredUnit:
    """Unit of a layer that gets an ERF, and the trace of its layer."""

    layer: str
    unit: Unit
    """Indices in the layer's map; where maps are aligned, the unit to which they are shifted."""
    trace: Trace
    sources: tuple[Unit, ...]
    """Units whose maps are averaged: the unit itself, or those that are aligned on it."""
    window: Unit = ()
    """Number of units along each axis, around the unit, whose values are summed; () for the unit alone."""
    beyond: int = 0
    """Units that are read after the last of the window, along each axis, as for its edges."""

    @property
    def target(self) -> Target:
        return Target(self.layer, (self.unit,), self.trace.layout, window=self.window)

    @property
    def corners(self) -> tuple[Unit, Unit]:
        """First and last unit of the window."""
        if not self.window:
            return self.unit, self.unit
        first, stop = zip(*window_range(self.unit, self.window), strict=True)
        return first, tuple(index - 1 for index in stop)

    @property
    def center(self) -> tuple[float, ...]:
        """Centre of the unit, or of the window, in pixels."""
        first, last = (self.trace.field.center(corner) for corner in self.corners)
        return tuple((one + other) / 2 for one, other in zip(first, last, strict=True))

    @property
    def seen(self) -> tuple[tuple[float, float], ...]:
        """Lower and upper end, along each axis, of what the unit or window sees, in pixels from its centre."""
        field, ends = self.trace.field, []
        first, last = self.corners
        read = first, tuple(index + self.beyond for index in last)
        for axis, center in enumerate(self.center):
            middles = [field.center(one)[axis] + field.shift(one)[axis] - center for one in read]
            halves = [field.extent(one)[axis] / 2 for one in read]
            low = min(middle - half for middle, half in zip(middles, halves, strict=True))
            ends.append((low, max(middle + half for middle, half in zip(middles, halves, strict=True))))
        return tuple(ends)

    def shift(self, unit: Unit) -> tuple[int, int]:
        """Return the shift (y, x) in pixels that aligns the map of another unit with that of this one."""
        field = self.trace.field
        y, x = (round(there - here) for there, here in zip(field.center(self.unit), field.center(unit), strict=True))
        return y, x


def trace_layers(
    model: nn.Module, layers: Sequence[str], input_shape: Sequence[int], settings: Settings
) -> dict[str, Trace]:
    """Trace each layer for images of `input_shape` (C, H, W); arguments and errors are those of `find_units`."""
    if not layers or len(set(layers)) < len(layers):
        raise InputError(f"layers: found {', '.join(layers) or 'none'}; expected one or more, each once")
    settings.arguments.check(input_shape)
    traces = trace(model, layers, input_shape, settings.arguments)
    _check_channel(traces, settings)
    return traces


def measured_units(traces: Mapping[str, Trace], settings: Settings) -> tuple[MeasuredUnit, ...]:
    """Resolve the choice of units: one result for each unit, or one per layer on which maps are aligned.

    Args:
        traces: trace of each layer.
        settings: settings of the run.

    Raises:
        LayerError: a unit does not exist.
        InputError: averages over units and over draws of projections cannot be combined.
    """
    units: list[MeasuredUnit] = []
    for layer, traced in traces.items():
        shape = traced.feature_shape[1:]
        sources = resolve_units(settings.unit, layer, shape, traced.field)
        if not settings.moves:
            beyond = 1 if settings.activation == EDGES else 0
            units += [MeasuredUnit(layer, unit, traced, (unit,), settings.window, beyond) for unit in sources]
            continue
        if settings.projections > 1 and len(sources) > 1:
            raise InputError("an average over units and over draws of projections; expected one of them")
        units.append(MeasuredUnit(layer, center_unit(shape), traced, sources))
    return tuple(units)


def find_units(
    model: nn.Module, input_shape: Sequence[int], layers: Sequence[str], settings: Settings
) -> list[tuple[str, Unit]]:
    """List the (layer, unit) pairs for which `compute_layers` returns one ERF each, in its order.

    Args:
        model: the network.
        input_shape: (C, H, W) of an image.
        layers: paths of one or more layers, each once.
        settings: those of the run.

    Raises:
        LayerError: a layer, unit or channel does not exist, or a layer yields no map.
        InputError: layers are repeated or missing, or the settings do not fit the input.
    """
    traces = trace_layers(model, layers, input_shape, settings)
    return [(each.layer, each.unit) for each in measured_units(traces, settings)]


def _check_channel(traces: Mapping[str, Trace], settings: Settings) -> None:
    if isinstance(settings.channel, int):
        for layer, traced in traces.items():
            if not 0 <= settings.channel < traced.feature_shape[0]:
                raise LayerError(
                    f"channel {settings.channel} of layer '{layer}', which has {traced.feature_shape[0]}; expected a "
                    "number below that"
                )
