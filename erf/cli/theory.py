"""`erf theory`: theoretical receptive field of a unit, checked with gradients for noise."""

from typing import Annotated

import typer

from erf.cli.console import BAD_INPUT, busy, reported_errors, say, warn
from erf.cli.network import build_network, warn_of_assumption
from erf.cli.options import Depth, LayerName, ModelArguments, ModelName, Seed, Size, Trust, UnitName, Weights


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
        from erf.checks.field import field_of

        network = build_network(model, weights, seed, size, model_arg, depth, trust)
        with busy("following the network"):
            found = field_of(network, layer, unit, share, warn_of_assumption)
        say(str(found))
        if found.probe.box is None:
            warn(
                f"layer {found.layer} passes no gradient; `erf check -m {network.name} --layer {found.layer}` shows "
                "where it ends"
            )
    if not found.holds:
        warn("the gradient leaves the theoretical field, which is therefore wrong for this network; please report it")
        raise typer.Exit(BAD_INPUT)
