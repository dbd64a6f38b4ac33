"""`erf check`: verify the gradient of a network's unit."""

from typing import Annotated

import typer

from erf.cli.console import BAD_INPUT, busy, reported_errors
from erf.cli.network import build_network, warn_of_assumption
from erf.cli.options import (
    LARGEST_SEED,
    Depth,
    LayerName,
    ModelArguments,
    ModelName,
    Seed,
    Size,
    Trust,
    UnitName,
    Weights,
)


def check(
    model: ModelName,
    layer: LayerName = "",
    unit: UnitName = "center",
    weights: Weights = "",
    seed: Seed = 0,
    image_seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the noise used as image.")] = 0,
    model_arg: ModelArguments = None,
    trust: Trust = False,
    size: Size = "",
    depth: Depth = 0,
) -> None:
    """Check a unit's gradient on noise: where it ends, and whether finite differences and theory agree with it.

    Random pixels are changed one by one and the unit's value is compared: the receptive field without any backward
    pass. Exit code 2 if a check fails.
    """
    with reported_errors():
        from erf.checks.gradient import COLUMNS
        from erf.checks.gradient import check as check_unit
        from erf.cli.tables import print_table

        network = build_network(model, weights, seed, size, model_arg, depth, trust)
        with busy("checking"):
            report = check_unit(network, layer, unit, image_seed=image_seed, warn=warn_of_assumption)
        print_table(report.title, list(COLUMNS), report.rows, left=3)
    if not report.passed:
        raise typer.Exit(BAD_INPUT)
