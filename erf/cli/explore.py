"""`erf explore`: a page on which a click on a pixel shows what a network sees there."""

import time
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from erf.cli.console import busy, parse_options, parse_size, reported_errors, say
from erf.cli.network import warn_of_assumption
from erf.cli.options import (
    IMAGES,
    NETWORK,
    RUN,
    AllowOutside,
    Device,
    FitName,
    ImageSeed,
    ImageSource,
    Interpolation,
    ModelArguments,
    Normalise,
    Seed,
    Size,
    Trust,
    Weights,
)


def explore(
    files: Annotated[list[Path] | None, typer.Argument(help="ERF files to show beside the networks, or alone.")] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="Network, as for `erf compute`; several to compare them, none to look at files alone.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    images: ImageSource = "phantom",
    n: Annotated[
        int,
        typer.Option(
            "-n",
            min=0,
            help="Images; default: all, or 8 phantoms.",
            show_default=False,
            rich_help_panel=IMAGES,
        ),
    ] = 0,
    weights: Weights = "",
    model_arg: ModelArguments = None,
    trust: Trust = False,
    size: Size = "",
    normalise: Normalise = "",
    fit: FitName = "",
    interpolation: Interpolation = "",
    allow_outside: AllowOutside = False,
    image_seed: ImageSeed = 0,
    seed: Seed = 0,
    device: Device = "auto",
    memory: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Gigabytes for the graph of an image, which makes further clicks fast; default: half of what is free.",
            rich_help_panel=RUN,
        ),
    ] = None,
    port: Annotated[
        int,
        typer.Option(min=0, max=65535, help="Port; default: a free one.", show_default=False, rich_help_panel=RUN),
    ] = 0,
    token: Annotated[
        str,
        typer.Option(
            help="Secret in the address, by which bookmarks stay valid; default: a random one.",
            rich_help_panel=RUN,
            envvar="ERF_TOKEN",
        ),
    ] = "",
    no_open: Annotated[
        bool, typer.Option("--no-open", help="Print the address without opening a browser.", rich_help_panel=RUN)
    ] = False,
) -> None:
    """Open a page on this machine: click a pixel of an image, and see the receptive field of the unit there.

    Drag to move it, shift-click to see which units see a pixel, step through the layers, compare two networks or a
    stored field. Nothing leaves the machine. Ctrl-C ends it.
    """
    with reported_errors():
        from erf.explorer import explore as open_explorer
        from erf.network.devices import keep_freed_memory
        from erf.process import StopRequest

        keep_freed_memory()
        with busy("building the network"):
            explorer = open_explorer(
                list(model or []) or None, images, files=list(files or []), n=n or None, weights=weights or None,
                size=parse_size(size) if size else None, model_args=parse_options(list(model_arg or [])), trust=trust,
                normalisation=normalise, fit=fit, interpolation=interpolation, image_seed=image_seed,
                allow_outside=allow_outside, seed=seed, device=device, memory=memory, port=port, token=token,
                open_browser=False, warn=warn_of_assumption,
            )  # fmt: skip
        with StopRequest() as stop, explorer:
            say(f"the explorer is at {explorer.url}\nwhoever has this address can see the images; Ctrl-C ends it")
            if not no_open:
                webbrowser.open(explorer.url)
            while not stop() and explorer.is_running:
                time.sleep(0.1)
        say("the explorer has ended")
