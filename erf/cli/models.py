"""`erf models`: list the available networks."""

from typing import TYPE_CHECKING, Annotated

import typer

from erf.cli.console import fail, reported_errors

if TYPE_CHECKING:
    from erf.models import ModelCard
    from erf.models.tables import TableRow

GIBI = 2**30


def models(
    pattern: Annotated[str, typer.Argument(help="Shell-style pattern, such as `gmic*`.")] = "*",
    table: Annotated[str, typer.Option(help="`srb` or `hct`: our counts next to those printed in this paper.")] = "",
) -> None:
    """List the networks by paper: parameters, default input, layers."""
    with reported_errors():
        if table:
            _print_counts(table)
        else:
            _print_cards(pattern)


def _print_cards(pattern: str) -> None:
    from erf.cli.tables import print_table
    from erf.models import list_models, model_card

    names = list_models(pattern)
    if not names:
        fail(f"no model matches '{pattern}'; known models: {', '.join(list_models())}")
    cards = [model_card(name) for name in names]
    for paper in dict.fromkeys(card.paper for card in cards):
        rows = [_row(card) for card in cards if card.paper == paper]
        print_table(paper, ["name", "network", "layers (* default)", "parameters", "default input"], rows, left=3)


def _row(card: "ModelCard") -> list[str]:
    size = "{1}x{2}, {0} ch.".format(card.in_channels, *card.input_size)
    from erf.models import shipped_weights

    trained = ", trained weights" if shipped_weights(card.name) else ""
    return [card.name, card.summary + trained, _shorten(card.layers, card.default_layer), f"{card.parameters:,}", size]


def _shorten(layers: tuple[str, ...], default: str) -> str:
    """List layers from input to output; of numbered layers only the first and the last."""
    shown: list[str] = []
    for index, layer in enumerate(layers):
        kind = layer.rstrip("0123456789")
        inside = 0 < index < len(layers) - 1 and all(
            layers[near].rstrip("0123456789") == kind for near in (index - 1, index + 1)
        )
        if not inside:
            shown.append(layer)
        elif shown[-1] != "…":
            shown.append("…")
    return " ".join(f"{layer}*" if layer == default else layer for layer in shown)


def _print_counts(table: str) -> None:
    from erf.cli.tables import print_table
    from erf.models.tables import block_rows, network_rows

    rows = [
        [row.what, f"{counted.parameters:,}", *_compared(row), f"{counted.multiply_adds / GIBI:.3f}"]
        for row, counted in network_rows(table)
    ]
    print_table(
        f"{table}: networks. Parameters: all, as the paper counts. Multiply-adds, which it does not print: "
        "convolutions, matrix products and Fourier transforms, for one image of the default size.",
        ["network", "parameters", "[M]", "paper [M]", "difference", "multiply-adds [2^30]"],
        rows,
    )
    if table != "srb":
        return
    rows = []
    for row, counted in block_rows():
        everything = counted.parameters / 1e3 if row.unit == "K" else (counted.multiply_adds + counted.norms) / GIBI
        quantity = f"{row.quantity} [{row.unit}]: {row.rule}"
        rows.append([row.what, quantity, *_compared(row), f"{everything:.{row.digits + 1}f}"])
    print_table(
        "srb: one block on a map of 128 channels, 64x64 (before up4 of U-Net*). What the paper counts differs from "
        "block to block; 'in all' adds what it leaves out.",
        ["block", "what is counted", "ours", "paper", "difference", "in all"],
        rows,
        left=2,
    )


def _compared(row: "TableRow") -> list[str]:
    """Format our count with one digit more than the paper prints, the paper's count, and the difference."""
    return [f"{row.ours:.{row.digits + 1}f}", row.printed, f"{row.difference:+.{row.digits + 1}f}"]
