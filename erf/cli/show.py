"""`erf show`: what is in an ERF file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from erf.cli.console import reported_errors, say

if TYPE_CHECKING:
    from erf.result import ERF


def show(
    file: Annotated[Path, typer.Argument(help="ERF file written by `erf compute`, or a series over training.")],
    images: Annotated[bool, typer.Option("--images", help="List every image as well.")] = False,
) -> None:
    """Show how an ERF file came about and what it holds."""
    with reported_errors():
        from erf.cli.tables import print_series, print_subsets, print_table
        from erf.series import is_series, load_series
        from erf.storage import check_sums, load

        has_sums = check_sums(file)
        integrity = "every byte agrees with its sum" if has_sums else "no sums: an older file, or changed since"
        if is_series(file):
            print_series(str(file), load_series(file))
            say(f"integrity: {integrity}")
            return
        erf = load(file)
        rows = [list(row) for row in [*erf.provenance.described(), ("integrity", integrity)]]
        print_table(str(file), ["attribute", "value"], rows, left=2)
        print_subsets(erf, erf.provenance.shown_definition)
        say(f"{len(erf.images)} images, {len(erf.failures)} of them skipped")
        if images or erf.failures:
            _list_images(erf, only_failures=not images)


def _list_images(erf: "ERF", only_failures: bool) -> None:
    from erf.cli.tables import print_table

    shown = erf.failures if only_failures else erf.images
    rows = [[image.id, image.laterality, image.view, image.patient_id, image.status, image.message] for image in shown]
    print_table("images", ["id", "laterality", "view", "patient", "status", "message"], rows, left=6)
