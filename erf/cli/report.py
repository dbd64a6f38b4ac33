"""`erf report`: write an HTML page about one or several ERF files."""

from pathlib import Path
from typing import Annotated

import typer

from erf.cli.console import busy, reported_errors, warn
from erf.cli.options import AllowDifferent, ByImage, ErfFiles, Labels, Overwrite, Resamples, SeedOfDraws
from erf.definitions import DEFAULT_DEFINITION


def report(
    files: ErfFiles,
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML page.")] = Path("report.html"),
    measures: Annotated[str, typer.Option(help="As for `erf compare`.")] = "",
    subset: Annotated[str, typer.Option(help="Subset of the images for the table of numbers.")] = "all",
    definition: Annotated[str, typer.Option(help="Definition for the table of numbers.")] = DEFAULT_DEFINITION,
    labels: Labels = "",
    resamples: Resamples = 2000,
    seed: SeedOfDraws = 0,
    by_image: ByImage = False,
    allow_different: AllowDifferent = False,
    overwrite: Overwrite = False,
) -> None:
    """Write an interactive page: numbers, maps, curves, images, provenance; it works offline."""
    with reported_errors():
        from erf.cli.erf_files import tabulate_files
        from erf.cli.output_files import writing
        from erf.report import SUFFIXES, write_report
        from erf.uncertainty import Resampling

        resampling = Resampling(resamples=resamples, seed=seed)
        with writing([output], overwrite, SUFFIXES, files) as staging:
            with busy("resampling images"):
                table = tabulate_files(
                    files, measures, labels, subset, definition, resampling, by_image, allow_different
                )
            with busy("computing bands, writing the page"):
                write_report(table, staging.part(output))
        for note in table.notes:
            warn(note)
