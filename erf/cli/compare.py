"""`erf compare`: measures of ERFs with intervals, side by side."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from erf.cli.console import busy, fail, reported_errors, say, warn
from erf.cli.options import AllowDifferent, ByImage, Labels, Overwrite, ProtocolName, Resamples, SeedOfDraws
from erf.definitions import DEFAULT_DEFINITION

if TYPE_CHECKING:
    from erf.comparison import ComparisonTable
    from erf.uncertainty import Resampling

_WIDE = 140
"""Terminal width, in columns, from which the meanings of measures are shown."""


def compare(
    files: Annotated[list[Path] | None, typer.Argument(help="ERF files; differences are to the first.")] = None,
    measures: Annotated[str, typer.Option(help="Names with commas, or `all`; `--list` explains each.")] = "",
    subset: Annotated[str, typer.Option(help="Subset of the images, such as `left`.")] = "all",
    protocol: ProtocolName = "",
    definition: Annotated[str, typer.Option(help="One that all files have; not `signed`.")] = DEFAULT_DEFINITION,
    labels: Labels = "",
    level: Annotated[float, typer.Option(help="Level of the intervals.")] = 0.95,
    resamples: Resamples = 2000,
    interval: Annotated[str, typer.Option(help="`t`, `bca` or `percentile`.")] = "t",
    seed: SeedOfDraws = 0,
    mm: Annotated[bool, typer.Option("--mm", help="Lengths in millimetres, if pixel spacings are known.")] = False,
    by_image: ByImage = False,
    allow_different: AllowDifferent = False,
    mirror: Annotated[
        bool,
        typer.Option(
            "--mirror", help="Mirror test of a file and the same run with --mirror: does the field turn with the image?"
        ),
    ] = False,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", help="Also write .csv, .json, .tex or .md; can be given several times."),
    ] = None,
    overwrite: Overwrite = False,
    list_: Annotated[bool, typer.Option("--list", help="Explain every measure, and exit.")] = False,
) -> None:
    """Measure ERFs from their files, with intervals over images or patients; no model is needed."""
    with reported_errors():
        if list_:
            _explain()
            return
        from erf.cli.erf_files import tabulate_files
        from erf.cli.output_files import writing
        from erf.comparison import FORMATS, render
        from erf.storage.files import complete_file
        from erf.uncertainty import Resampling

        outputs = list(output or ())
        if mirror and outputs:
            fail("--mirror only prints its table; leave --output out")

        resampling = Resampling(level, resamples, interval, seed)
        if mirror:
            _mirror(files or [], labels, subset, definition, resampling, by_image)
            return
        with writing(outputs, overwrite, [f".{kind}" for kind in FORMATS], files or []) as staging:
            with busy("measuring"):
                table = tabulate_files(
                    files or [], measures, labels, subset, definition, resampling, by_image, allow_different
                )
            for path in outputs:
                with complete_file(staging.part(path)) as part:
                    part.write_text(render(table, path.suffix[1:].lower(), mm), encoding="utf-8")
        _print(table, mm)


def _mirror(
    files: list[Path], labels: str, subset: str, definition: str, resampling: "Resampling", by_image: bool
) -> None:
    from erf.cli.erf_files import load_named
    from erf.cli.tables import print_table
    from erf.comparison.mirror import mirror_rows, mirror_test
    from erf.comparison.table import FEW

    if len(files) != 2:
        fail(f"found {len(files)} files; expected two, the second from the same run with --mirror")
    erfs, names = load_named(files, labels)
    test = mirror_test(
        *erfs, label=names[0], subset=subset, definition=definition, resampling=resampling, by_patient=not by_image
    )
    title = f"mirror test, {erfs[0].provenance.title}, layer {erfs[0].provenance.layer}, {test.images} images"
    head = ["measure", "meaning", "unit", f"value [{100 * resampling.level:g} % interval]"]
    print_table(title, head, mirror_rows([test]), left=3)
    if test.groups < FEW:
        warn(f"{test.groups} patients or images are too few for intervals to be relied on")


def _explain() -> None:
    from erf.cli.tables import print_table
    from erf.measures import DEFAULT_MEASURES, MEASURES, RESOLUTION

    rows = [
        [
            f"{name}*" if name in DEFAULT_MEASURES else name,
            *(measure.description, measure.unit, measure.bounds, measure.part, measure.source),
        ]
        for name, measure in MEASURES.items()
    ]
    head = ["name", "meaning", "unit", "range", "from", "source"]
    print_table("measures (* shown by default)", head, rows, left=len(head))
    for part, words in RESOLUTION.items():
        say(f"Resolution of what comes from {part}: {words}.")


def _print(table: "ComparisonTable", mm: bool) -> None:
    from erf.cli.tables import print_table
    from erf.comparison.formats import describe_methods, difference_rows, value_rows

    head, rows = value_rows(table, mm)
    if shutil.get_terminal_size().columns < _WIDE:  # `--list` shows the meanings
        head, rows = [head[0], *head[2:]], [[row[0], *row[2:]] for row in rows]
    print_table("measures", head, rows, left=len(head) - len(table.erfs))
    if len(table.erfs) > 1:
        head, rows = difference_rows(table, mm)
        print_table(f"differences to {table.labels[0]}", head, rows, left=2)
    say(describe_methods(table))
    for note in table.notes:
        warn(note)
