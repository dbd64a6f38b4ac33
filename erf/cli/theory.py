"""`erf theory`: theoretical receptive field of a unit, checked with gradients for noise."""

import math
from typing import TYPE_CHECKING, Annotated

import typer

from erf.cli.console import BAD_INPUT, busy, reported_errors, say, warn
from erf.cli.network import build_network, warn_of_assumption
from erf.cli.options import Depth, LayerName, ModelArguments, ModelName, Seed, Size, Trust, UnitName, Weights

if TYPE_CHECKING:
    from erf.box import Box
    from erf.building import Network
    from erf.gradients.support import Probe
    from erf.theory.tracing import Trace


def theory(
    model: ModelName,
    layer: LayerName = "",
    unit: UnitName = "center",
    share: Annotated[
        float, typer.Option(min=0.01, max=1, help="Share of the gradient to keep, for the advice on overlapping tiles.")
    ] = 0.95,
    weights: Weights = "",
    seed: Seed = 0,
    model_arg: ModelArguments = None,
    trust: Trust = False,
    size: Size = "",
    depth: Depth = 0,
) -> None:
    """Show the theoretical receptive field of a unit: size, stride, offset, what makes it infinite, and advice.

    It is followed through the operators that the network runs, and checked: gradients with respect to noise must stay
    inside. Exit code 2 if they do not.
    """
    with reported_errors():
        from erf.box import is_inside
        from erf.building.network import SMALLER
        from erf.gradients.support import border_layer, probe, theoretical_box
        from erf.network.devices import memory_errors

        network = build_network(model, weights, seed, size, model_arg, depth, trust)
        with busy("following the network"), memory_errors(SMALLER):
            points = network.mapped_layers()
            name, traced, place = network.locate(layer, unit, points, warn_of_assumption)
        with busy("gradients of noise"), memory_errors(SMALLER):
            found = probe(network.model, name, place, traced, network.input_shape, network.arguments)
        box = theoretical_box(traced, place, network.size)
        _print_field(network, name, place, traced)
        _print_probe(found, box)
        is_kept = found.box is None or is_inside(found.box, box)
        if is_kept:
            _print_advice(network, name, traced, found, share)
            border = border_layer(points, network.size)
            if border is not None:
                say(
                    f"border layer: {border.name} is the first whose field is larger than the input; all units of "
                    "later layers see the border"
                )
    if not is_kept:
        warn("the gradient leaves the theoretical field: theory is wrong for this network; please report it")
        raise typer.Exit(BAD_INPUT)


def _print_field(network: "Network", layer: str, unit: tuple[int, ...], traced: "Trace") -> None:
    field = traced.field
    shape = "x".join(map(str, network.input_shape))
    say(f"{network.name}, layer {layer}, unit {','.join(map(str, unit))}, input {shape}")
    rows = [
        ("map", f"{'x'.join(map(str, traced.feature_shape[1:]))} of {traced.feature_shape[0]} channels"),
        ("read as", traced.layout.words),
        ("stride", _px(field.stride)),
        ("centre of unit 0", _px(field.offset)),
        ("centre of this unit", _px(field.center(unit))),
        ("theoretical field", _field_words(traced, unit)),
    ]
    if field.unbounded_by:
        rows.append(("infinite by", ", ".join(field.unbounded_by)))
    for name, words in rows:
        say(f"  {name:<22}{words}")


def _field_words(traced: "Trace", unit: tuple[int, ...]) -> str:
    kind = traced.field.kind
    if kind == "data-dependent":
        return "no bound: positions depend on the input"
    return "infinite: every pixel" if kind == "infinite" else _px(traced.field.extent(unit))


def _px(values: tuple[float, ...]) -> str:
    words = " × ".join("∞" if math.isinf(value) else f"{value:g}" for value in values)
    return f"{words} px"


def _print_probe(found: "Probe", box: "Box[int]") -> None:
    def words(box: "Box[int]") -> str:
        return f"rows {box.top} to {box.bottom - 1}, columns {box.left} to {box.right - 1}"

    say(f"  {'inside the input':<22}{words(box)}")
    reached = "zero everywhere" if found.box is None else words(found.box)
    say(f"  {'gradients reach':<22}{reached}")


def _print_advice(network: "Network", layer: str, traced: "Trace", found: "Probe", share: float) -> None:
    if found.box is None:
        warn(f"layer {layer} passes no gradient; `erf check -m {network.name} --layer {layer}` shows where it ends")
        return
    reach = found.reach(share)
    say(
        f"tiles: an overlap of {2 * reach} px ({reach} px on each side) keeps {100 * share:g} % of this gradient"
        + (f", {_exact(traced)} all of it" if traced.field.kind == "finite" else "")
    )
    if found.touches_border:
        say("border: the field touches the edge of this input; it would be larger on a larger one")


def _exact(traced: "Trace") -> str:
    return f"{max(traced.field.size) - 1:g} px"
