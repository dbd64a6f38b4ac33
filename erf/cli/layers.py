"""`erf layers`: list the layers of a network."""

from typing import Annotated

import typer

from erf.cli.console import busy, reported_errors, say
from erf.cli.network import build_network
from erf.cli.options import Depth, ModelArguments, ModelName, Size, Trust


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
        from erf.building.layer_table import COLUMNS, LayerTable
        from erf.cli.tables import print_table

        network = build_network(model, size=size, model_args=model_arg, depth=depth, trust=trust)
        with busy("following the network"):
            table = LayerTable.of(network, [pattern] if pattern else (), depth_of_modules)
        deeper = f" ({table.hidden} deeper ones: --levels)" if table.hidden else ""
        print_table(f"{table.title}{deeper}", list(COLUMNS), table.rows, left=3)
        if table.note:
            say(table.note)
