"""`erf plot`: draw one or several ERF files."""

from pathlib import Path
from typing import Annotated

import typer

from erf.cli.console import busy, fail, parse_list, parse_numbers, reported_errors
from erf.cli.options import Labels, Overwrite, ProtocolName
from erf.definitions import DEFAULT_DEFINITION


def plot(
    files: Annotated[list[Path], typer.Argument(help="ERF files written by `erf compute`; several are overlaid.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="PNG, SVG or PDF picture, or an interactive HTML page.")
    ] = Path("erf.png"),
    definition: Annotated[
        str, typer.Option(help="How the gradient became a map: signed, abs, relu or square.")
    ] = DEFAULT_DEFINITION,
    protocol: ProtocolName = "",
    subsets: Annotated[str, typer.Option(help="Such as `left,right`; default: all that the files share.")] = "",
    labels: Labels = "",
    scale: Annotated[
        str,
        typer.Option(
            help="Scale of the maps' colours: log (four decades), sqrt, linear, log1p (log10(1 + map) over its "
            "maximum, as RepLKNet), or a power such as power:0.2 (VMamba)."
        ),
    ] = "log",
    colors: Annotated[
        str, typer.Option(help="Colour map of the maps: viridis, magma, gray, RdYlGn, coolwarm or RdBu_r.")
    ] = "",
    clip: Annotated[
        str,
        typer.Option(
            help="Percentiles of a map's pixels, such as `1,99.5`, beyond which colours do not change.",
            metavar="LOW,HIGH",
        ),
    ] = "",
    joint_scale: Annotated[
        bool,
        typer.Option(
            "--joint-scale",
            help="One colour scale for all maps, of the share of the mass per pixel (with log1p of the map itself); "
            "else each map has its own.",
        ),
    ] = False,
    shares: Annotated[
        str, typer.Option(help="Shares of the mass in per cent that `--layout contours` draws.")
    ] = "50,90,99",
    layout: Annotated[
        str,
        typer.Option(
            help="overview; paper, paper-curves (Tables 1 and A2 of the HCT paper); differences; contours; radial; "
            "growth (files of several layers); convergence (with the number of images); ranks (of networks if their "
            "gradients are multiplied by a number)."
        ),
    ] = "overview",
    over_training: Annotated[
        bool,
        typer.Option("--over-training", help="Draw a series with an epoch axis, as `erf train --erf-every` writes it."),
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Draw maps, curves across rows and columns, and their square roots."""
    with reported_errors():
        from erf.cli.erf_files import load_named
        from erf.cli.output_files import writing
        from erf.plotting import SUFFIXES
        from erf.plotting import plot as draw

        if over_training:
            _draw_series(files, output, definition, parse_list(subsets), overwrite)
            return
        limits = parse_numbers("--clip", clip, count=2)
        with writing([output], overwrite, SUFFIXES, files) as staging, busy("drawing"):
            erfs, names = load_named(files, labels)
            draw(
                erfs,
                staging.part(output),
                definition=definition,
                subsets=parse_list(subsets),
                labels=names,
                scale=scale,
                colors=colors,
                clip=(limits[0], limits[1]) if limits else None,
                joint_scale=joint_scale,
                shares=[share / 100 for share in parse_numbers("--shares", shares)],
                layout=layout,
            )


def _draw_series(files: list[Path], output: Path, definition: str, subsets: tuple[str, ...], overwrite: bool) -> None:
    from erf.cli.output_files import writing
    from erf.plotting import SUFFIXES
    from erf.plotting.series import plot_series
    from erf.storage.series import load_series

    if len(files) != 1:
        fail(f"{len(files)} files over training; expected one series")
    with writing([output], overwrite, SUFFIXES[:-1], files) as staging, busy("drawing"):
        plot_series(load_series(files[0]), staging.part(output), definition=definition, subsets=subsets)
