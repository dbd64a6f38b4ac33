"""`erf merge`: merge the shards of a run into one file."""

from pathlib import Path
from typing import Annotated

import typer

from erf.cli.console import busy, reported_errors
from erf.cli.options import Overwrite


def merge(
    files: Annotated[list[Path], typer.Argument(help="ERF files of one run's shards, in any order.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="HDF5 file to write.")],
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Merge even if shards are missing.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Merge the files of `erf compute --shard` into that of the whole run; overlapping images are refused."""
    with reported_errors():
        from erf.accumulation.merging import merge as merge_erfs
        from erf.cli.output_files import writing
        from erf.cli.tables import print_subsets
        from erf.storage import SUFFIXES, FileSink, load

        with writing([output], overwrite, SUFFIXES, files) as staging:
            erfs = [load(file) for file in files]
            with FileSink(staging.part(output)) as sink, busy("merging"):
                merge_erfs(erfs, allow_missing=allow_missing, sink=sink)
        merged = load(output)
        print_subsets(merged, merged.provenance.shown_definition)
