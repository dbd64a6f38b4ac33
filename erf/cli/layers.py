"""`erf layers`: list the layers of a network."""

import math
from typing import TYPE_CHECKING, Annotated

import typer

from erf.cli.console import busy, fail, reported_errors
from erf.cli.network import build_network
from erf.cli.options import Depth, ModelArguments, ModelName, Size, Trust

if TYPE_CHECKING:
    from erf.theory.layers import MappedLayer


def layers(
    model: ModelName,
    pattern: Annotated[str, typer.Argument(help="Shell-style pattern of names, such as `layer*`.")] = "",
    depth_of_modules: Annotated[
        int, typer.Option("--levels", min=1, help="How deep modules within modules are listed, without a pattern.")
    ] = 2,
    model_arg: ModelArguments = None,
    trust: Trust = False,
    size: Size = "",
    depth: Depth = 0,
) -> None:
    """List the layers that yield a map: what `--layer` takes, with stride and theoretical receptive field."""
    with reported_errors():
        from erf.cli.tables import print_table
        from erf.theory.layers import default_layer, match_layers

        network = build_network(model, size=size, model_args=model_arg, depth=depth, trust=trust)
        with busy("following the network"):
            points = network.mapped_layers()
        default = network.card.default_layer or default_layer(points)
        wanted = match_layers(points, pattern) if pattern else []
        shown = [
            point
            for point in points
            if (point.name in wanted if pattern else point.depth <= depth_of_modules or point.name == default)
        ]
        if not shown:
            fail(f"no layer of {model} yields a map over the input")
        shape = "x".join(map(str, network.input_shape))
        print_table(
            f"{model}: layers that yield a map of an input {shape}; * is the default"
            + ("" if pattern or len(shown) == len(points) else f" ({len(points) - len(shown)} deeper ones: --levels)"),
            ["layer", "module", "output", "stride [px]", "theoretical field [px]", "infinite by"],
            [_row(point, default) for point in shown],
            left=3,
        )


def _row(point: "MappedLayer", default: str) -> list[str]:
    field, traced = point.trace.field, point.trace
    return [
        f"{point.name}*" if point.name == default else point.name,
        point.kind + (f", called {point.calls} times" if point.calls > 1 else ""),
        "x".join(map(str, point.output_shape[1:])) + _read_as(traced.layout.words),
        _along(field.stride),
        "depends on the input" if field.kind == "data-dependent" else _along(field.size),
        ", ".join(field.unbounded_by),
    ]


def _read_as(words: str) -> str:
    """Describe the layout of an output, unless it is the usual one."""
    return "" if words == "channels first" else f": {words}"


def _along(values: tuple[float, ...]) -> str:
    """Format values along the axes; a single one if they are equal."""
    words = ["∞" if math.isinf(value) else f"{value:g}" for value in values]
    return words[0] if len(set(words)) == 1 else " × ".join(words)
