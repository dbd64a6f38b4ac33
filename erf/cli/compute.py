"""`erf compute`: the ERF of one unit over a set of images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from erf.cli.anonymise import check_salt
from erf.cli.console import SOME_SKIPPED, fail, parse_list, parse_options, reported_errors
from erf.cli.network import build_network, pick_layers
from erf.cli.options import (
    GRADIENT,
    IMAGES,
    OUTPUT,
    PRIVACY,
    RUN,
    AllowOutside,
    Depth,
    Device,
    FitName,
    ImageSeed,
    ImageSource,
    Interpolation,
    Keep,
    ModelArguments,
    ModelName,
    Normalise,
    Overwrite,
    ProtocolName,
    Salt,
    Seed,
    Size,
    Thumbnails,
    Trust,
    Weights,
)
from erf.cli.over_training import compute_snapshots, weight_files
from erf.cli.processes import Processes, parse_shard
from erf.cli.protocols import deviations
from erf.definitions import DEFAULT_DEFINITION, DEFINITIONS
from erf.text import file_name

if TYPE_CHECKING:
    from erf.engine.settings import Settings
    from erf.storage.privacy import Anonymity
    from erf.uncertainty import StoppingRule


def compute(
    context: typer.Context,
    model: ModelName,
    images: ImageSource = "phantom",
    n: Annotated[
        int,
        typer.Option("-n", min=1, help="Number of images, drawn evenly over left and right.", rich_help_panel=IMAGES),
    ] = 100,
    layer: Annotated[
        str,
        typer.Option(
            help="Layer, as `erf layers` lists them; default: what global pooling receives. Several with commas, "
            "`*` or `all` share the forward pass and give a file each; `output:KEY` is one of several outputs.",
            rich_help_panel=GRADIENT,
        ),
    ] = "",
    unit: Annotated[
        str,
        typer.Option(
            help="`center`, `y,x` in the layer's map, `pixel:y,x`, `grid:3x3`, several with `;`, or `window:16x16`, "
            "the sum over so many. For each image: `max`, `column:NAME` of the manifest, or `mask:NAME` for random "
            "pixels of a mask; maps are then aligned on the unit.",
            rich_help_panel=GRADIENT,
        ),
    ] = "center",
    protocol: ProtocolName = "",
    aligned: Annotated[
        bool,
        typer.Option(
            "--align", help="Average several units, shifted onto each other, into one file.", rich_help_panel=GRADIENT
        ),
    ] = False,
    channel: Annotated[
        str,
        typer.Option(
            help="`all`, the number of one (of logits, a class), or `signs`: random ones, with --definitions square.",
            rich_help_panel=GRADIENT,
        ),
    ] = "all",
    activation: Annotated[
        str,
        typer.Option(
            help="Function of the unit's channels of which the gradient is taken: `none`, `relu`, `sigmoid`, "
            "`softmax`, or `edges` of a window.",
            rich_help_panel=GRADIENT,
        ),
    ] = "none",
    method: Annotated[
        str,
        typer.Option(
            help="`gradient`, `input-x-gradient`, `integrated-gradients`, `guided-backprop`, `deeplift`, "
            "`gradient-shap`, `occlusion` or `blur-path`.",
            rich_help_panel=GRADIENT,
        ),
    ] = "gradient",
    method_arg: Annotated[
        list[str] | None,
        typer.Option(help="Option of the method, such as n_steps=50.", rich_help_panel=GRADIENT, metavar="NAME=VALUE"),
    ] = None,
    weights: Weights = "",
    model_arg: ModelArguments = None,
    trust: Trust = False,
    size: Size = "",
    depth: Depth = 0,
    normalise: Normalise = "",
    fit: FitName = "",
    interpolation: Interpolation = "",
    mirror: Annotated[
        bool,
        typer.Option(
            "--mirror",
            help="Flip every image left to right, for `erf compare --mirror`.",
            rich_help_panel=IMAGES,
        ),
    ] = False,
    allow_outside: AllowOutside = False,
    lesions: Annotated[int, typer.Option(min=0, help="Lesions in each phantom.", rich_help_panel=IMAGES)] = 0,
    definitions: Annotated[
        str,
        typer.Option(
            help="How a gradient becomes a map: signed, abs, relu, square, relu-sum, abs-sum, several with commas, or "
            "`all`; one pass serves all.",
            rich_help_panel=GRADIENT,
        ),
    ] = DEFAULT_DEFINITION,
    subset_by: Annotated[
        str, typer.Option(help="Manifest columns that define further subsets, such as `view`.", rich_help_panel=IMAGES)
    ] = "",
    projections: Annotated[
        int,
        typer.Option(
            min=1,
            max=1_000_000,
            help="Number of draws to average over of random projections (hct), or of a random network.",
            rich_help_panel=GRADIENT,
        ),
    ] = 1,
    seed: Seed = 0,
    image_seed: ImageSeed = 0,
    precision: Annotated[
        str,
        typer.Option(
            help="`float32`, or `bfloat16`: faster where the hardware has it; the file holds its error.",
            rich_help_panel=RUN,
        ),
    ] = "float32",
    device: Device = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Images per pass; default: several if they are small.", rich_help_panel=RUN),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=0, help="Threads that decode ahead; default: 1 on a CPU, 4 with a GPU.", rich_help_panel=RUN),
    ] = None,
    deterministic: Annotated[
        bool,
        typer.Option("--deterministic", help="Only algorithms that give the same bits each time.", rich_help_panel=RUN),
    ] = False,
    crop: Annotated[
        bool,
        typer.Option(
            help="Pass only the part of the image that contains a finite theoretical field through the network.",
            rich_help_panel=RUN,
        ),
    ] = True,
    self_check: Annotated[
        bool,
        typer.Option(
            help="Compute the first image also without optimisations, which are used only if both gradients agree.",
            rich_help_panel=RUN,
        ),
    ] = True,
    allow_rounding: Annotated[
        bool,
        typer.Option(
            "--allow-rounding",
            help="Compute also where the channels of a unit sum to a constant, so that the gradient is rounding.",
            rich_help_panel=GRADIENT,
        ),
    ] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Print how long each stage took.", rich_help_panel=RUN)
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first image that cannot be used.", rich_help_panel=RUN)
    ] = False,
    until: Annotated[
        float | None,
        typer.Option(
            help="Stop before -n images once half the width of the measure's 95 % interval is this share of it.",
            rich_help_panel=RUN,
            metavar="SHARE",
        ),
    ] = None,
    measure: Annotated[
        str, typer.Option(help="For --until; `erf compare --list` explains each.", rich_help_panel=RUN)
    ] = "r50",
    further: Annotated[
        list[Path] | None,
        typer.Argument(hidden=True, help="Weights files into which a shell expanded --weights PATTERN."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="HDF5 file; default: MODEL.h5 in this folder. Of several layers, NAME.LAYER.h5; of several weights, "
            "MODEL-over-training.h5.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    picture: Annotated[
        bool, typer.Option(help="Also draw the result as PNG next to the HDF5 file.", rich_help_panel=OUTPUT)
    ] = True,
    overwrite: Overwrite = False,
    shard: Annotated[
        str,
        typer.Option(
            help="Compute only the I-th of N parts of the images, for `erf merge`.", rich_help_panel=RUN, metavar="I/N"
        ),
    ] = "",
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue an interrupted run of the same command.", rich_help_panel=OUTPUT),
    ] = False,
    anonymise: Annotated[
        bool,
        typer.Option(
            "--anonymise",
            help="Hash ids and patients; leave out columns, paths and thumbnails.",
            rich_help_panel=PRIVACY,
        ),
    ] = False,
    salt: Salt = "",
    keep: Keep = "",
    thumbnails: Thumbnails = False,
) -> None:
    """Compute the effective receptive field of a unit over images, for all, left and right breasts.

    With the weights of several epochs (`--weights 'runs/hct/checkpoints/*'`), the file has an epoch axis.

    Exit code 0: done; 3: done, but images were skipped; 2: nothing written, one line says why; 130, 143: interrupted,
    and what was done is kept for --resume.
    """
    with reported_errors():
        from erf.cli.computing import compute_files, compute_profiled
        from erf.cli.job import Job, Selection
        from erf.engine.settings import Settings

        epochs = weight_files(weights, further or [])
        output, drawing = _outputs(model, output, picture, bool(epochs))
        until_precise = _stopping_rule(until, measure)
        processes = Processes.of_environment()
        part = _part(shard, processes)
        network = build_network(model, str(epochs[0]) if epochs else weights, seed, size, model_arg, depth, trust)
        settings = Settings(
            unit=unit, channel=_channel(channel), aligned=aligned, activation=activation, method=method,
            method_options=parse_options(method_arg or [], "--method-arg") or None, arguments=network.arguments,
            definitions=tuple(DEFINITIONS) if definitions == "all" else parse_list(definitions),
            subset_by=parse_list(subset_by), projections=projections, seed=seed, precision=precision,
            device=processes.device(device), batch_size=batch_size, workers=workers, deterministic=deterministic,
            strict=strict, until=until_precise, crop=crop, self_check=self_check,
            allow_rounding=allow_rounding,
        )  # fmt: skip
        selection = Selection(
            source=images, n=n, image_seed=image_seed, normalisation=normalise, fit=fit, interpolation=interpolation,
            mirror=mirror, lesions=lesions, allow_outside=allow_outside,
        )  # fmt: skip
        privacy = _privacy(anonymise, salt, keep, thumbnails, settings, part)
        job = Job(
            network, selection, pick_layers(network, layer), settings, output, drawing, overwrite, resume, part,
            processes, privacy, protocol, deviations(context, protocol),
        )  # fmt: skip
        if epochs:
            compute_snapshots(job, epochs)
            return
        some_skipped = compute_profiled(job) if profile else compute_files(job)
    if some_skipped:
        raise typer.Exit(SOME_SKIPPED)


def _outputs(model: str, output: Path | None, picture: bool, over_training: bool) -> tuple[Path, Path | None]:
    """Return the file of the results and the picture, checked before the network is built."""
    from erf.storage import SUFFIXES
    from erf.storage.outputs import check_outputs

    output = output or Path(f"{file_name(model)}{'-over-training' if over_training else ''}.h5")
    check_outputs([output], SUFFIXES)
    drawing = output.with_suffix(".png") if picture else None
    check_outputs([output, *([drawing] if drawing else [])])
    return output, drawing


def _channel(text: str) -> int | str:
    return int(text) if text.isdecimal() and len(text) < 10 else text


def _part(shard: str, processes: Processes) -> tuple[int, int]:
    """Return (i, n), counted from 1: the part of the images that this process computes."""
    if processes.count > 1 and shard:
        fail("--shard and several processes at once; expected one of them")
    return parse_shard(shard) if shard else (processes.rank + 1, processes.count)


def _privacy(
    anonymise: bool, salt: str, keep: str, thumbnails: bool, settings: "Settings", part: tuple[int, int]
) -> "Anonymity | None":
    """Return the anonymisation settings, or None; without a salt, one is drawn later."""
    if not anonymise:
        if keep or thumbnails:
            fail("--keep and --thumbnails need --anonymise")
        return None
    from erf.storage.privacy import Anonymity

    check_salt(salt)
    if part[1] > 1 and not salt:
        fail("--anonymise of a part of a run needs --salt, the same for all parts, so that patients stay together")
    kind, _, rest = str(settings.unit).partition(":")
    by_unit = [rest.partition(":")[0]] if kind in ("column", "mask") else []
    kept = parse_list(keep)
    lost = [name for name in (*settings.subset_by, *by_unit) if name not in ("view", "laterality", "patient_id", *kept)]
    if lost:
        fail(f"--anonymise leaves out the column '{lost[0]}', which the run needs; keep it with --keep {lost[0]}")
    return Anonymity(salt, kept, thumbnails)


def _stopping_rule(until: float | None, measure: str) -> "StoppingRule | None":
    if until is None:
        return None
    from erf.uncertainty import StoppingRule

    return StoppingRule(until, measure)
