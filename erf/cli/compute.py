"""`erf compute`: the ERF of one unit over a set of images."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from erf.cli.console import (
    SOME_SKIPPED,
    ProgressReport,
    StopRequest,
    fail,
    parse_list,
    parse_options,
    reported_errors,
    warn,
)
from erf.cli.network import Depth, ModelArguments, ModelName, Network, Size, Weights, build_network, file_name
from erf.cli.over_training import compute_series, weight_files
from erf.cli.processes import Processes, parse_shard
from erf.definitions import DEFAULT_DEFINITION, DEFINITIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from erf.checkpoint import Checkpoint
    from erf.images import ImageSet
    from erf.intervals import Precision
    from erf.result import ERF
    from erf.settings import Settings

_MOST_DRAWN = 12
"""Fields in one picture."""

_INPUT, _RUN, _OUTPUT = "What is measured", "How it is run", "What is written"


def compute(
    model: ModelName,
    images: Annotated[
        str,
        typer.Option(
            help="A folder, a manifest CSV, or `phantom` for generated mammograms.",
            rich_help_panel=_INPUT,
            metavar="SOURCE",
        ),
    ] = "phantom",
    n: Annotated[
        int, typer.Option("-n", min=1, help="Images in all, drawn evenly over left and right.", rich_help_panel=_INPUT)
    ] = 100,
    layer: Annotated[
        str,
        typer.Option(
            help="Tap point, as `erf layers` lists them; default: what global pooling receives. Several with commas, "
            "`*` or `all` share the forward pass and give a file each; `output:KEY` is one of several outputs.",
            rich_help_panel=_INPUT,
        ),
    ] = "",
    unit: Annotated[
        str,
        typer.Option(
            help="`center`, `y,x` in the layer's map, `pixel:y,x`, `grid:3x3`, several with `;`. Image by image: "
            "`max`, or `column:NAME` of the manifest, and maps are aligned on the unit.",
            rich_help_panel=_INPUT,
        ),
    ] = "center",
    aligned: Annotated[
        bool,
        typer.Option(
            "--align", help="Average several units, moved onto each other, into one file.", rich_help_panel=_INPUT
        ),
    ] = False,
    channel: Annotated[
        str,
        typer.Option(
            help="`all`, the number of one (of logits, a class), or `signs`: random ones, with --definitions square.",
            rich_help_panel=_INPUT,
        ),
    ] = "all",
    method: Annotated[
        str,
        typer.Option(
            help="`gradient`, `input-x-gradient`, `integrated-gradients`, `guided-backprop`, `deeplift`, "
            "`gradient-shap` or `occlusion`.",
            rich_help_panel=_INPUT,
        ),
    ] = "gradient",
    method_arg: Annotated[
        list[str] | None,
        typer.Option(help="Option of the method, such as n_steps=50.", rich_help_panel=_INPUT, metavar="NAME=VALUE"),
    ] = None,
    weights: Weights = "",
    model_arg: ModelArguments = None,
    size: Size = "",
    depth: Depth = 0,
    normalise: Annotated[
        str,
        typer.Option(help="`standardise`, `unit` or `none`; default: the model's own.", rich_help_panel=_INPUT),
    ] = "",
    resample: Annotated[
        bool,
        typer.Option(
            "--resample", help="Scale images to fit the frame, instead of padding or cropping.", rich_help_panel=_INPUT
        ),
    ] = False,
    mirror: Annotated[
        bool,
        typer.Option(
            "--mirror",
            help="Turn every image left to right: `erf compare --mirror` tells what that does.",
            rich_help_panel=_INPUT,
        ),
    ] = False,
    allow_outside: Annotated[
        bool,
        typer.Option("--allow-outside", help="Paths of a manifest may lead out of its folder.", rich_help_panel=_INPUT),
    ] = False,
    lesions: Annotated[int, typer.Option(min=0, help="Findings in each phantom.", rich_help_panel=_INPUT)] = 0,
    definitions: Annotated[
        str,
        typer.Option(
            help="How a gradient becomes a map: signed, abs, relu, square, several with commas, or `all`, "
            "from the same pass.",
            rich_help_panel=_INPUT,
        ),
    ] = DEFAULT_DEFINITION,
    subset_by: Annotated[
        str, typer.Option(help="Manifest columns that make further subsets, such as `view`.", rich_help_panel=_INPUT)
    ] = "",
    projections: Annotated[
        int,
        typer.Option(
            min=1,
            help="Average over this many draws of random projections (hct), or of a network that is random.",
            rich_help_panel=_INPUT,
        ),
    ] = 1,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the draw, the phantoms and untrained weights.", rich_help_panel=_INPUT)
    ] = 0,
    precision: Annotated[
        str,
        typer.Option(
            help="`float32`, or `bfloat16`: faster where the hardware has it; the file holds its error.",
            rich_help_panel=_RUN,
        ),
    ] = "float32",
    device: Annotated[
        str, typer.Option(help="`auto`, `cpu`, `cuda`, `cuda:1` or `mps`.", rich_help_panel=_RUN)
    ] = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Images per pass; default: several where they are small.", rich_help_panel=_RUN),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=0, help="Threads that decode ahead; default: 1 beside a CPU, 4 beside a GPU.", rich_help_panel=_RUN
        ),
    ] = None,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic", help="Only algorithms that give the same bits each time.", rich_help_panel=_RUN
        ),
    ] = False,
    window: Annotated[
        bool,
        typer.Option(
            help="Give the network only the part of the image that holds a finite theoretical field.",
            rich_help_panel=_RUN,
        ),
    ] = True,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first image that cannot be used.", rich_help_panel=_RUN)
    ] = False,
    until: Annotated[
        float | None,
        typer.Option(
            help="Stop before -n images once the half width of the measure's 95 % interval is this share of it.",
            rich_help_panel=_RUN,
            metavar="SHARE",
        ),
    ] = None,
    measure: Annotated[
        str, typer.Option(help="For --until; `erf compare --list` explains each.", rich_help_panel=_RUN)
    ] = "r50",
    further: Annotated[
        list[Path] | None, typer.Argument(hidden=True, help="Weights that a shell has made of --weights PATTERN.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="HDF5 file; default: MODEL.h5 in this folder. Of several layers, NAME.LAYER.h5; of several weights, "
            "MODEL-over-training.h5.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    picture: Annotated[
        bool, typer.Option(help="Also draw the result beside the HDF5 file, as PNG.", rich_help_panel=_OUTPUT)
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that exist.", rich_help_panel=_OUTPUT)
    ] = False,
    shard: Annotated[
        str,
        typer.Option(
            help="Only the I-th of N parts of the images, for `erf merge`.", rich_help_panel=_RUN, metavar="I/N"
        ),
    ] = "",
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with an interrupted run of the same command.", rich_help_panel=_OUTPUT),
    ] = False,
) -> None:
    """Compute the effective receptive field of a unit over images, for all, left and right breasts.

    With the weights of several epochs (`--weights 'runs/hct/checkpoints/*'`), the file has an epoch axis.

    Exit code 0: done; 3: done, but images were skipped; 2: nothing written, one line says why; 130, 143: interrupted,
    and what was done is kept for --resume.
    """
    with reported_errors():
        epochs = weight_files(weights, further or [])
    output = output or Path(f"{file_name(model)}{'-over-training' if epochs else ''}.h5")
    drawing = output.with_suffix(".png") if picture else None
    with reported_errors():
        from erf.disk import check_free
        from erf.storage import FileSink, remove_parts

        if drawing is not None and drawing.exists() and not overwrite:
            fail(f"{drawing} exists; choose another --output, or ask for --overwrite or --no-picture")
        until_precise = _precision(until, measure)
        processes = Processes.of_environment()
        part = _part(shard, processes)
        network = build_network(model, str(epochs[0]) if epochs else weights, seed, size, model_arg, depth)
        from erf.settings import Settings

        settings = Settings(
            unit=unit,
            channel=int(channel) if channel.isdecimal() else channel,
            aligned=aligned,
            method=method,
            method_options=parse_options(method_arg or [], "--method-arg") or None,
            arguments=network.arguments,
            definitions=tuple(DEFINITIONS) if definitions == "all" else parse_list(definitions),
            subset_by=parse_list(subset_by),
            projections=projections,
            precision=precision,
            device=processes.device(device),
            batch_size=batch_size,
            workers=workers,
            deterministic=deterministic,
            strict=strict,
            until=until_precise,
            window=window,
        )
        layers = network.layers(layer)
        if epochs:
            check_free(output, overwrite)
            if processes.count > 1 or shard or resume:
                fail("several --weights run in one process, without --shard and --resume")
            with ProgressReport(model) as progress:
                chosen = _choose(
                    network, images, n, seed, normalise, resample, mirror, lesions, allow_outside, progress
                )
                compute_series(network, epochs, chosen, layers, settings, output, drawing, seed, images, progress)
            return
        files = _files(output, network, layers, settings)
        parts = [processes.part(file) for file in files]
        for file in files:
            check_free(file, overwrite)

        def work() -> "tuple[ERF, ...]":
            with ExitStack() as stack:
                stop = stack.enter_context(StopRequest())
                stack.enter_context(_interruption(stop))
                checkpoint = stack.enter_context(_checkpoint(parts[-1], resume, overwrite))
                for file in parts:
                    remove_parts(file)
                sinks = [
                    stack.enter_context(FileSink(file, overwrite=overwrite or processes.count > 1)) for file in parts
                ]
                from erf.devices import reuse_freed_memory
                from erf.engine import compute_layers
                from erf.result import Origin

                origin = Origin(
                    model=model,
                    model_options=network.options,
                    weights=network.weights,
                    weights_sha256=network.weights_sha256,
                    seed=seed,
                    source=images,
                    command=shlex.join(["erf", *sys.argv[1:]]),
                )
                reuse_freed_memory()
                progress = stack.enter_context(ProgressReport(model, quiet=not processes.is_first))
                image_set = _choose(
                    network, images, n, seed, normalise, resample, mirror, lesions, allow_outside, progress
                )
                return compute_layers(
                    network.model,
                    image_set if part == (1, 1) else image_set.shard(*part),
                    layers,
                    settings,
                    origin=origin,
                    sinks=sinks,
                    scratch=output.parent,
                    progress=progress,
                    checkpoint=checkpoint,
                    stop=stop,
                )

        # A process that was done before another one failed keeps its part.
        is_done = resume and processes.count > 1 and all(file.exists() for file in parts)
        erfs = () if is_done else work()
        if processes.count > 1:
            erfs = processes.gather(files, overwrite)
        if processes.is_first:
            _report(erfs, files, drawing, until_precise)
    if processes.is_first and erfs[0].failures:
        raise typer.Exit(SOME_SKIPPED)


def _part(shard: str, processes: Processes) -> tuple[int, int]:
    """Which part of the run is this process's."""
    if processes.count > 1 and shard:
        fail("--shard and several processes at once; expected one of them")
    return parse_shard(shard) if shard else (processes.rank + 1, processes.count)


def _checkpoint(output: Path, resume: bool, overwrite: bool) -> "Checkpoint":
    from erf import checkpoint

    folder = output.with_name(f".{output.name}.progress")
    return checkpoint.Checkpoint(folder, resume, fresh=overwrite, every=checkpoint.EVERY)


@contextmanager
def _interruption(stop: StopRequest) -> Iterator[None]:
    """Ends an interrupted run with one line and the signal's exit code."""
    from erf.errors import InterruptedRunError

    try:
        yield
    except InterruptedRunError as error:
        typer.secho(f"erf: {error}; the same command with --resume goes on from there", fg="red", err=True)
        raise typer.Exit(128 + stop.number) from None
    except KeyboardInterrupt:
        typer.secho("erf: interrupted; the same command with --resume goes on from what was saved", fg="red", err=True)
        raise typer.Exit(128 + (stop.number or 2)) from None


def _files(output: Path, network: Network, layers: "Sequence[str]", settings: "Settings") -> list[Path]:
    """A file for each unit of each layer; units are known beforehand only where there is one of each."""
    from erf.engine import find_spots

    single = settings.moves or not any(mark in str(settings.unit) for mark in (";", "grid:"))
    spots = (
        [(layer, ()) for layer in layers]
        if single
        else find_spots(network.model, network.input_shape, layers, settings)
    )
    names = []
    for layer, unit in spots:
        of_layer = f".{layer.replace(':', '-')}" if len(layers) > 1 else ""
        of_unit = f".{'-'.join(map(str, unit))}" if len(spots) > len(layers) else ""
        names.append(output.with_suffix(f"{of_layer}{of_unit}{output.suffix}"))
    return names


def _choose(
    network: Network,
    source: str,
    n: int,
    seed: int,
    normalise: str,
    resample: bool,
    mirror: bool,
    lesions: int,
    allow_outside: bool,
    progress: ProgressReport,
) -> "ImageSet":
    from erf.images import load_images

    chosen = load_images(
        source,
        n=n,
        seed=seed,
        size=network.size,
        channels=network.channels,
        inputs=network.arguments.names,
        normalisation=normalise or network.card.normalisation,
        resample=resample,
        mirror=mirror,
        lesions=lesions,
        allow_outside=allow_outside,
        progress=progress,
    )
    if len(chosen) < n:
        warn(f"{source} has {len(chosen)} images, {n} were asked for; all of them are used")
    return chosen


def _precision(until: float | None, measure: str) -> "Precision | None":
    if until is None:
        return None
    from erf.intervals import Precision

    return Precision(until, measure)


def _report(erfs: "Sequence[ERF]", files: list[Path], drawing: Path | None, precision: "Precision | None") -> None:
    from erf.cli.tables import print_growth, print_subsets
    from erf.plotting import plot
    from erf.result import SHIPPED, tap_names

    last, written = erfs[-1], list(files)
    shown = last.provenance.shown_definition
    if len(erfs) == 1:
        print_subsets(last, shown)
    else:
        print_growth(erfs, shown)
    if precision is not None:
        _report_precision(last, precision)
    if drawing is not None and len(erfs) > _MOST_DRAWN:
        warn(f"{len(erfs)} fields are too many for one picture; `erf plot` draws some of them")
    elif drawing is not None:
        several = len({erf.provenance.layer for erf in erfs}) == len(erfs) > 1
        layout = "growth" if several and shown != "signed" else "overview"
        labels = tap_names([erf.provenance for erf in erfs]) if len(erfs) > 1 and not several else None
        written.append(plot(erfs, drawing, labels=labels, definition=shown, layout=layout, overwrite=True))
    typer.echo("written: " + ", ".join(map(str, written)))
    if last.provenance.weights.startswith(SHIPPED):
        typer.echo("Weights: those of the package, trained on phantoms; --weights none gives the untrained network.")
    for record in last.images:
        if record.status == "ok" and record.message:
            warn(f"{record.path}: {record.message}")
    if last.failures:
        warn(f"{len(last.failures)} of {len(last.images)} images were skipped:")
        for record in last.failures:
            warn(f"  {record.message}")


def _report_precision(erf: "ERF", precision: "Precision") -> None:
    from erf.comparison.formats import interval_words
    from erf.measures import MEASURES, observe

    measure = MEASURES[precision.measure]
    interval = precision.estimate(observe(erf, definition=erf.provenance.shown_definition))
    share = interval.half_width / abs(interval.value)
    words = f"{measure.name} {interval_words(interval, measure.factor)} {measure.unit}, ± {100 * share:.1f} %"
    typer.echo(f"after {erf.count()} images: {words}")
    if not precision.is_reached(interval):
        warn(f"{100 * precision.relative:g} % was asked for, which these images do not reach; ask for more with -n")
