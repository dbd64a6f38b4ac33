"""`erf models`: the networks there are."""

from typing import Annotated

import typer

from erf.cli.console import fail, reported_errors


def models(
    pattern: Annotated[str, typer.Argument(help="Shell-style pattern, such as `gmic*`.")] = "*",
) -> None:
    """List the networks: parameters, default input, tap points, paper."""
    with reported_errors():
        from erf.cli.tables import print_table
        from erf.models import list_models, model_card

        names = list_models(pattern)
        if not names:
            fail(f"no model matches '{pattern}'; known models: {', '.join(list_models())}")
        cards = [model_card(name) for name in names]
        rows = [
            [
                card.name,
                f"{card.summary}\n{card.paper}\ntap points: {', '.join(card.layers)}",
                f"{card.parameters:,}",
                "{1}x{2}, {0} ch.".format(card.in_channels, *card.input_size),
            ]
            for card in cards
        ]
        print_table("models", ["name", "what it is", "parameters", "default input"], rows, left=2)
