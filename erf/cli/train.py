"""`erf train`: train a network as in the papers, and track its receptive field."""

import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from erf.cli.console import (
    complain,
    fail,
    parse_list,
    parse_options,
    reported_errors,
    say,
    warn,
)
from erf.cli.network import build_network, pick_layers
from erf.cli.network_options import frame_of, with_classes
from erf.cli.options import (
    IMAGES,
    OUTPUT,
    RUN,
    TRAINING,
    AllowOutside,
    Classes,
    Examples,
    FitName,
    ImageSeed,
    Interpolation,
    ModelArguments,
    ModelName,
    Normalise,
    Overwrite,
    Seed,
    Size,
    Trust,
    Workers,
)
from erf.text import file_name

if TYPE_CHECKING:
    from torch import nn

    from erf.building import Network
    from erf.datasets import ExampleChoice, ExampleSet
    from erf.images import Framing
    from erf.tracking import TrainingMonitor
    from erf.training import Plan, Recipe

_TRACKING = "Receptive field over training"


def train(
    model: ModelName,
    images: Annotated[
        str,
        typer.Option(
            help="A manifest CSV with labels, the folder of BreakHis, ISIC or ChestX-ray14, or `phantom`.",
            rich_help_panel=IMAGES,
            metavar="SOURCE",
        ),
    ] = "phantom",
    n: Examples = 0,
    split: Annotated[
        str,
        typer.Option(
            help="Shares of train, val and test, split by patient unless the data define them.",
            rich_help_panel=IMAGES,
        ),
    ] = "80:10:10",
    where: Annotated[
        str,
        typer.Option(
            help="Train on the images with this value in a column, such as magnification=40X.",
            rich_help_panel=IMAGES,
            metavar="COLUMN=VALUE",
        ),
    ] = "",
    classes: Classes = "",
    allow_outside: AllowOutside = False,
    preset: Annotated[
        str,
        typer.Option(
            help="`hct-paper`, `phantom-small`, `srb-segmentation`, `srb-multilabel` or `magnification`.",
            rich_help_panel=TRAINING,
        ),
    ] = "phantom-small",
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change the recipe: `optimiser=asam`, `epochs=5`, or for one stage `patch.lr=1e-3`. Several times.",
            rich_help_panel=TRAINING,
            metavar="NAME=VALUE",
        ),
    ] = None,
    stages: Annotated[
        str, typer.Option(help="Only these stages of the recipe, such as `image`.", rich_help_panel=TRAINING)
    ] = "",
    weights: Annotated[
        str, typer.Option(help="Initial weights, instead of random ones.", rich_help_panel=TRAINING)
    ] = "none",
    model_arg: ModelArguments = None,
    trust: Trust = False,
    size: Size = "",
    normalise: Normalise = "",
    fit: FitName = "",
    interpolation: Interpolation = "",
    seed: Seed = 0,
    image_seed: ImageSeed = 0,
    device: Annotated[str, typer.Option(help="`auto` or `cpu`.", rich_help_panel=RUN)] = "auto",
    precision: Annotated[
        str, typer.Option(help="`float32`, or `bfloat16` for mixed precision.", rich_help_panel=RUN)
    ] = "float32",
    micro_batch: Annotated[
        int,
        typer.Option(
            min=0,
            help="Images per forward pass; gradients are accumulated over the batch. Default: the whole batch.",
            rich_help_panel=RUN,
        ),
    ] = 0,
    workers: Workers = 2,
    erf_every: Annotated[
        int,
        typer.Option(
            min=0, help="Compute the ERF before training and after every N epochs.", rich_help_panel=_TRACKING
        ),
    ] = 0,
    erf_images: Annotated[
        str,
        typer.Option(
            help="Source of the images for these ERFs, the same at every epoch.",
            rich_help_panel=_TRACKING,
        ),
    ] = "phantom",
    erf_n: Annotated[int, typer.Option(min=1, help="Number of images for these ERFs.", rich_help_panel=_TRACKING)] = 8,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the training; default: runs/MODEL.", rich_help_panel=OUTPUT),
    ] = None,
    overwrite: Overwrite = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Continue an interrupted training of the same command.", rich_help_panel=OUTPUT),
    ] = False,
) -> None:
    """Train a network, first on patches and then on whole images, as the recipe defines.

    The folder holds run.json (all settings), log.csv (every update), epochs.json, curves.png, weights after every
    epoch in checkpoints/, and final.safetensors.

    Exit code 0: done; 2: refused, one line says why; 130, 143: interrupted, and --resume goes on to the same weights.
    """
    with reported_errors():
        from erf.datasets import ExampleChoice
        from erf.storage.outputs import check_folder

        output = output or Path("runs") / file_name(model)
        check_folder(output)
        recipe = _recipe(preset, change or [], stages)
        data = ExampleChoice(
            source=images, n=n, seed=image_seed, split=split, classes=parse_list(classes), where=where,
            allow_outside=allow_outside, task=recipe.task,
        )  # fmt: skip
        examples = data.examples(frame_of(model, size))
        if not any(example.image.patient_id for example in examples):
            warn("no image names a patient; images of one patient may fall into different splits")
        options = with_classes(model, model_arg, examples.classes)
        network = build_network(model, weights, seed, size, options, trust=trust)
        framing = network.framing(normalise, fit, interpolation, source=images)
        plan = _plan(data, examples, recipe, framing, seed, device, precision, micro_batch, workers)
        tracked = Tracked(erf_every, erf_images, erf_n, image_seed + 1)  # other phantoms than those used for training
        monitor = tracked.monitor(network, plan.framing, output / "erf.h5") if erf_every else None
        _run(network, plan, output, monitor, tracked, data, resume, overwrite)


@dataclass(frozen=True)
class Tracked:
    """Choice of the ERFs computed during a training."""

    every: int
    images: str
    """Source of the images."""
    n: int
    seed: int

    def monitor(self, network: "Network", framing: "Framing", path: Path) -> "TrainingMonitor":
        """Choose the images, and return the object that computes ERFs on them."""
        from erf.images import choose_images
        from erf.tracking import TrainingMonitor

        images = choose_images(self.images, framing, n=self.n, seed=self.seed)
        (layer,) = pick_layers(network, "")
        origin = network.origin(image_seed=self.seed, source=self.images, command=_command())
        return TrainingMonitor(network, images, path, layer=layer, every=self.every, origin=origin)


def _command() -> str:
    return shlex.join(["erf", *sys.argv[1:]])


def _recipe(preset: str, changes: list[str], stages: str) -> "Recipe":
    from erf.training import PRESETS

    if preset not in PRESETS:
        fail(f"preset '{preset}' not known; expected one of {', '.join(PRESETS)}")
    recipe = PRESETS[preset].changed(parse_options(changes, "--set"))
    return recipe.without(parse_list(stages)) if stages else recipe


def _plan(
    data: "ExampleChoice",
    examples: "ExampleSet",
    recipe: "Recipe",
    framing: "Framing",
    seed: int,
    device: str,
    precision: str,
    micro_batch: int,
    workers: int,
) -> "Plan":
    from erf.network.devices import pick_device
    from erf.training import Plan

    chosen = data.chosen(examples)
    validated = any(example.split == "val" for example in chosen)
    return Plan(
        recipe,
        chosen.of_split("train"),
        chosen.of_split("val") if validated else None,
        framing,
        seed=seed,
        device=pick_device(device).type,
        precision=precision,
        micro_batch=micro_batch,
        workers=workers,
    )


def _run(
    network: "Network",
    plan: "Plan",
    output: Path,
    monitor: "TrainingMonitor | None",
    tracked: Tracked,
    data: "ExampleChoice",
    resume: bool,
    overwrite: bool,
) -> None:
    from erf.cli.processes import Processes
    from erf.errors import InterruptedRunError
    from erf.images import ProgressReport
    from erf.models import reorthogonalise
    from erf.network.devices import reuse_freed_memory
    from erf.process import StopRequest
    from erf.training import Folder, Training

    reuse_freed_memory()
    is_first = Processes.of_environment().is_first
    about = _about(network, plan, data, tracked, monitor)
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        folder = stack.enter_context(Folder(output, resume, overwrite, is_first))
        progress = stack.enter_context(ProgressReport(network.name, quiet=not is_first))
        if monitor is not None:
            monitor.progress = progress

        def after_epoch(model: "nn.Module", row: Mapping[str, Any]) -> None:
            progress.note(_format_epoch(row))
            if monitor is not None:
                monitor(model, row)

        training = Training(network.model, plan, folder, about, reorthogonalise, after_epoch, progress, stop)
        if resume and folder.is_finished:
            progress.note("finished before")
        try:
            state = training.run()
        except InterruptedRunError as error:
            complain(f"{error}; the same command with --resume goes on from there")
            raise typer.Exit(128 + stop.number) from None
        except KeyboardInterrupt:
            complain("interrupted; the same command with --resume goes on from what was saved")
            raise typer.Exit(128 + stop.number) from None
        if is_first:
            _report(output, state.epochs, monitor)


def _about(
    network: "Network", plan: "Plan", data: "ExampleChoice", tracked: Tracked, monitor: "TrainingMonitor | None"
) -> dict[str, Any]:
    """Return the entries of run.json that the training does not know."""
    from erf.engine.description import versions

    erf = {"every": tracked.every, "images": tracked.images, "n": tracked.n}
    return {
        "model": network.name,
        "model_options": dict(network.options),
        "weights": network.weights,
        "weights_sha256": network.weights_sha256,
        "erf": erf | {"layer": monitor.layer} if monitor else {},
        "trained_on": data.where,
        "data": asdict(data),
        "normalisation": plan.framing.normalisation,
        "fit": plan.framing.fit,
        "interpolation": plan.framing.interpolation,
        "command": _command(),
        "versions": versions(("erf-toolkit", "torch", "accelerate")),
    }


def _format_epoch(row: Mapping[str, Any]) -> str:
    """Format the row of an epoch as one line."""
    words = [f"epoch {row['epoch']} ({row['stage']})"]
    words += [f"loss {row['loss']:.3f}"] if "loss" in row else []
    words += [
        f"{name.removeprefix('validation_').replace('_', ' ')} {value:.3f}"
        for name, value in row.items()
        if name.startswith("validation_") and name != "validation_loss"
    ]
    return ", ".join([*words, *([f"{row['seconds']:.0f} s"] if "seconds" in row else [])])


def _report(output: Path, epochs: "Sequence[Mapping[str, Any]]", monitor: "TrainingMonitor | None") -> None:
    from erf.plotting.training import draw_curves

    draw_curves(output, output / "curves.png")
    written = [output / "final.safetensors", output / "curves.png"]
    if monitor is not None:
        from erf.plotting.series import plot_series

        plot_series(monitor.series(), monitor.path.with_suffix(".png"), overwrite=True)
        written += [monitor.path, monitor.path.with_suffix(".png")]
    say(f"last: {_format_epoch(epochs[-1])}")
    say(f"written: {', '.join(map(str, written))}")
