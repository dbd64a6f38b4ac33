"""`erf atlas`: many networks in one page and one table."""

from pathlib import Path
from typing import Annotated

import typer

from erf.cli.console import SOME_SKIPPED, parse_list, parse_size, reported_errors, say, warn
from erf.cli.options import IMAGES, NETWORK, OUTPUT, RUN, Device, ImageSeed, ImageSource, Normalise, Seed, Size


def atlas(
    networks: Annotated[
        list[str],
        typer.Argument(
            help="Names of networks; patterns, such as 'unet*' or 'timm:resnet*', in quotes; ERF files; maps of other "
            "programs (.npy, .npz); lists (.txt) with one of these per line."
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Folder of the page (index.html), the table (atlas.csv) and the ERF files (fields/).",
            rich_help_panel=OUTPUT,
        ),
    ] = Path("atlas"),
    images: ImageSource = "phantom",
    n: Annotated[int, typer.Option("-n", min=1, help="Images for each network.", rich_help_panel=IMAGES)] = 20,
    size: Size = "",
    weights: Annotated[
        str,
        typer.Option(
            help="`none` for untrained networks, `timm:TAG`; default: shipped weights where there are any.",
            rich_help_panel=NETWORK,
        ),
    ] = "",
    normalise: Normalise = "",
    definition: Annotated[
        str, typer.Option(help="abs, relu or square; default: abs, or what a file shows.", rich_help_panel=RUN)
    ] = "",
    measures: Annotated[
        str,
        typer.Option(help="Columns; `erf compare --list` explains each.", rich_help_panel=OUTPUT),
    ] = "r50,r90,square50,anisotropy,variability",
    scale: Annotated[
        str, typer.Option(help="Scale of the colours, as for `erf plot`.", rich_help_panel=OUTPUT)
    ] = "log",
    colors: Annotated[str, typer.Option(help="Colour map, as for `erf plot`.", rich_help_panel=OUTPUT)] = "",
    joint_scale: Annotated[
        bool,
        typer.Option(
            "--joint-scale", help="One colour scale for all networks; else each has its own.", rich_help_panel=OUTPUT
        ),
    ] = False,
    title: Annotated[str, typer.Option(help="Title of the page.", rich_help_panel=OUTPUT)] = "",
    seed: Seed = 0,
    image_seed: ImageSeed = 0,
    device: Device = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Compute networks again that are kept.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Show many networks in one page, which sorts and filters and works offline, and in one table.

    Networks that were computed before with the same options are kept, so that the same command resumes. One that fails
    is a row with its reason, and the exit code is 3.
    """
    with reported_errors():
        from erf.report.atlas import atlas as make

        made = make(
            networks, output, images=images, n=n, size=parse_size(size) if size else None, weights=weights or None,
            normalisation=normalise, seed=seed, image_seed=image_seed, definition=definition,
            measures=parse_list(measures), device=device, scale=scale, colors=colors, joint_scale=joint_scale,
            title=title or "Atlas of effective receptive fields", overwrite=overwrite, progress=say,
        )  # fmt: skip
        say(f"written: {made.page}, {made.table}")
        if made.failures:
            warn(f"{len(made.failures)} of {len(made.entries)} networks have no field; the page says why")
    if made.failures:
        raise typer.Exit(SOME_SKIPPED)
