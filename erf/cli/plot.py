"""`erf plot`: draw one or several ERF files."""

from pathlib import Path
from typing import Annotated

import typer

from erf.cli.console import busy, fail, parse_list, reported_errors
from erf.cli.options import Labels, Overwrite
from erf.definitions import DEFAULT_DEFINITION


def plot(
    files: Annotated[list[Path], typer.Argument(help="ERF files written by `erf compute`; several are overlaid.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="PNG, SVG or PDF picture, or an interactive HTML page.")
    ] = Path("erf.png"),
    definition: Annotated[
        str, typer.Option(help="How the gradient became a map: signed, abs, relu or square.")
    ] = DEFAULT_DEFINITION,
    subsets: Annotated[str, typer.Option(help="Such as `left,right`; default: all that the files share.")] = "",
    labels: Labels = "",
    scale: Annotated[str, typer.Option(help="Scale of the maps' colours: log, sqrt or linear.")] = "log",
    layout: Annotated[
        str,
        typer.Option(
            help="overview; paper, paper-curves (Tables 1 and A2 of the HCT paper); differences; contours; radial; "
            "growth (files of several layers); convergence (with the number of images)."
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
        from erf.cli.files import load_named
        from erf.cli.writing import writing
        from erf.plotting import SUFFIXES
        from erf.plotting import plot as draw

        if over_training:
            _draw_series(files, output, definition, parse_list(subsets), overwrite)
            return
        with writing([output], overwrite, SUFFIXES, files) as staging, busy("drawing"):
            erfs, names = load_named(files, labels)
            draw(
                erfs,
                staging.part(output),
                definition=definition,
                subsets=parse_list(subsets),
                labels=names,
                scale=scale,
                layout=layout,
            )


def _draw_series(files: list[Path], output: Path, definition: str, subsets: tuple[str, ...], overwrite: bool) -> None:
    from erf.cli.writing import writing
    from erf.plotting import SUFFIXES
    from erf.plotting.series import draw_series
    from erf.storage.series import load_series

    if len(files) != 1:
        fail(f"{len(files)} files over training; expected one series")
    with writing([output], overwrite, SUFFIXES[:-1], files) as staging, busy("drawing"):
        draw_series(load_series(files[0]), staging.part(output), definition=definition, subsets=subsets)
