"""`erf show`: print the content of an ERF file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from erf.cli.console import reported_errors, say
from erf.cli.remedies import translate

if TYPE_CHECKING:
    from erf.results import ERF, ImageRecord, Overview, Provenance
    from erf.storage.series import Series


def show(
    file: Annotated[Path, typer.Argument(help="ERF file written by `erf compute`, or a series over training.")],
    images: Annotated[bool, typer.Option("--images", help="List every image as well.")] = False,
    private: Annotated[
        bool, typer.Option("--private", help="List the identifying information in the file instead.")
    ] = False,
) -> None:
    """Show the provenance and content of an ERF file, and verify its checksums."""
    with reported_errors():
        from erf.storage import check_sums, load
        from erf.storage.series import is_series, load_series

        has_sums = check_sums(file)
        if is_series(file):
            _show_series(file, load_series(file), has_sums, private)
        else:
            _show_erf(file, load(file), has_sums, images, private)


def _show_erf(file: Path, erf: "ERF", has_sums: bool, images: bool, private: bool) -> None:
    from erf.cli.tables import print_subsets, print_table

    if private:
        _print_identifiers(file, erf.images, [erf.provenance], erf.overview())
        return
    for subset in erf.subsets:  # files without sums show damage only when they are read
        statistics = erf.statistics(subset, erf.provenance.shown_definition)
        _ = statistics.mean, statistics.variance
    rows = [list(row) for row in [*erf.provenance.described(), ("integrity", _integrity(has_sums))]]
    print_table(str(file), ["attribute", "value"], rows, left=2)
    print_subsets(erf, erf.provenance.shown_definition)
    say(f"{len(erf.images)} images, {len(erf.failures)} of them skipped")
    if images or erf.failures:
        _list_images(erf, only_failures=not images)


def _show_series(file: Path, series: "Series", has_sums: bool, private: bool) -> None:
    from erf.cli.tables import print_series

    if private:
        _print_identifiers(file, series.images, [moment.provenance for moment in series.moments], series.overview)
        return
    print_series(str(file), series)
    say(f"integrity: {_integrity(has_sums)}")


def _integrity(has_sums: bool) -> str:
    return "all checksums agree" if has_sums else "no checksums: an older file, or changed since"


def _print_identifiers(
    file: Path, images: "Sequence[ImageRecord]", origins: "Sequence[Provenance]", overview: "Overview | None"
) -> None:
    from erf.cli.tables import print_table
    from erf.storage.privacy import identifiers

    found = identifiers(images, origins, overview)
    if not found:
        say(f"{file}: no identifying information about its {len(images)} images")
        return
    rows = [[one.what, str(one.count), one.example] for one in found]
    print_table(f"{file}: identifying information", ["what", "distinct values", "example"], rows, left=3)
    say("`erf anonymise` writes a file without it.")


def _list_images(erf: "ERF", only_failures: bool) -> None:
    from erf.cli.tables import print_table

    shown = erf.failures if only_failures else erf.images
    rows = [
        [image.id, image.laterality, image.view, image.patient_id, image.status, translate(image.message)]
        for image in shown
    ]
    print_table("images", ["id", "laterality", "view", "patient", "status", "message"], rows, left=6)
