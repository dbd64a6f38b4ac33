"""The command line: one thin module per command."""

import os
import sys
import warnings
from importlib.metadata import version
from typing import Annotated

import typer

from erf.cli.anonymise import anonymise
from erf.cli.atlas import atlas
from erf.cli.bench import bench
from erf.cli.check import check
from erf.cli.compare import compare
from erf.cli.compute import compute
from erf.cli.console import report_unforeseen, say
from erf.cli.evaluate import evaluate
from erf.cli.explore import explore
from erf.cli.importing import import_map
from erf.cli.layers import layers
from erf.cli.manifest import manifest
from erf.cli.merge import merge
from erf.cli.models import models
from erf.cli.plot import plot
from erf.cli.protocols import protocols
from erf.cli.report import report
from erf.cli.show import show
from erf.cli.theory import theory
from erf.cli.train import train

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        say(f"erf-toolkit {version('erf-toolkit')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version, and exit.")
    ] = False,
) -> None:
    """Effective receptive fields: how strongly each input pixel influences one unit of a network."""


for command in (
    compute,
    merge,
    anonymise,
    compare,
    plot,
    explore,
    report,
    atlas,
    protocols,
    show,
    models,
    layers,
    theory,
    check,
    bench,
    train,
    evaluate,
    manifest,
):
    app.command()(command)
app.command("import")(import_map)


def main() -> None:
    """Run the command line; report unexpected errors in one line, or with a traceback if ERF_DEBUG=1 is set."""
    # Decoders' warnings about a file are kept in the result; in a terminal they would hide important messages.
    warnings.filterwarnings("ignore", module=r"pydicom\.|PIL\.")
    try:
        app(prog_name="erf")
    except Exception as error:
        if os.environ.get("ERF_DEBUG"):
            raise
        sys.exit(report_unforeseen(error))
