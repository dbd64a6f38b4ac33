"""`erf plot`: pictures of one or several ERF files."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from erf.cli.console import parse_list, reported_errors
from erf.definitions import DEFAULT_DEFINITION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from erf.result import ERF


def plot(
    files: Annotated[list[Path], typer.Argument(help="ERF files written by `erf compute`; several are overlaid.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="PNG, SVG or PDF picture, or an interactive HTML page.")
    ] = Path("erf.png"),
    definition: Annotated[
        str, typer.Option(help="How the gradient became a map: signed, abs, relu or square.")
    ] = DEFAULT_DEFINITION,
    subsets: Annotated[str, typer.Option(help="Such as `left,right`; default: all that the files share.")] = "",
    labels: Annotated[str, typer.Option(help="One per file, with commas; default: the models' names.")] = "",
    scale: Annotated[str, typer.Option(help="Of the maps' colours: log, sqrt or linear.")] = "log",
    layout: Annotated[
        str,
        typer.Option(
            help="overview; paper, paper-curves (Tables 1 and A2 of the HCT paper); differences; contours; radial."
        ),
    ] = "overview",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a picture that exists.")] = False,
) -> None:
    """Draw maps, curves across rows and columns, and their square roots."""
    with reported_errors():
        from erf.plotting import plot as draw
        from erf.storage import load

        erfs = [load(file) for file in files]
        names = parse_list(labels) or name_files(erfs, files)
        draw(
            erfs,
            output,
            definition=definition,
            subsets=parse_list(subsets),
            labels=names,
            scale=scale,
            layout=layout,
            overwrite=overwrite,
        )
        typer.echo(f"written: {output}")


def name_files(erfs: "Sequence[ERF]", files: "Sequence[Path]") -> list[str]:
    """Models and their options, and where several files share them, the file's name too."""
    titles = [erf.provenance.title for erf in erfs]
    counts = Counter(titles)
    return [
        title if counts[title] == 1 else f"{title} ({file.stem})" for title, file in zip(titles, files, strict=True)
    ]
