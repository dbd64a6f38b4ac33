"""`erf import`: make an ERF file of a map that another program has computed."""

from pathlib import Path
from typing import Annotated

import typer

from erf.cli.console import parse_numbers, reported_errors, say
from erf.cli.options import Overwrite
from erf.definitions import DEFAULT_DEFINITION


def import_map(
    file: Annotated[
        Path, typer.Argument(help="Array of NumPy, .npy or .npz: a map (H, W), or maps (N, H, W) of N images.")
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="HDF5 file; default: FILE.h5 here.")] = None,
    center: Annotated[
        str,
        typer.Option(help="Position `y,x` of the unit in pixels of the map, from 0; default: the middle of the map."),
    ] = "",
    title: Annotated[str, typer.Option(help="Name of the network; default: the name of the file.")] = "",
    definition: Annotated[
        str, typer.Option(help="How the gradient became the map: signed, abs, relu or square.")
    ] = DEFAULT_DEFINITION,
    array: Annotated[str, typer.Option(help="Name of the array in a .npz file with several.")] = "",
    overwrite: Overwrite = False,
) -> None:
    """Import a map of another program as an ERF file, which is then measured, drawn and compared like any other."""
    with reported_errors():
        from erf.cli.output_files import writing
        from erf.cli.tables import print_subsets
        from erf.importing import import_map as make
        from erf.storage import SUFFIXES, save

        written = output or Path(f"{file.stem}.h5")
        with writing([written], overwrite, SUFFIXES, [file]) as staging:
            erf = make(file, title=title, definition=definition, center=_position(center), array=array)
            save(erf, staging.part(written))
        print_subsets(erf, definition)
        origin = erf.provenance
        y, x = origin.unit_center
        say(f"centre of the unit: y {y:g}, x {x:g} px, {origin.imported['centre']}")
        say("not known, and so not shown: theoretical field, layer, weights" + _unknown_images(erf.is_mean_only))


def _position(text: str) -> tuple[float, float] | None:
    """Parse `y,x`; None for an empty text."""
    numbers = parse_numbers("--center", text, count=2)
    return (numbers[0], numbers[1]) if numbers else None


def _unknown_images(is_mean_only: bool) -> str:
    return "; of a single map also the number of images, the variance and all intervals" if is_mean_only else ""
