"""`erf train`: train a network as in the papers, and track its receptive field."""

import copy
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from erf.cli.console import (
    ProgressReport,
    StopRequest,
    complain,
    fail,
    parse_list,
    parse_options,
    reported_errors,
    say,
    warn,
)
from erf.cli.examples import Data, frame_of, with_classes
from erf.cli.network import ModelArguments, ModelName, Network, Size, Trust, build_network, file_name
from erf.cli.options import LARGEST_SEED

if TYPE_CHECKING:
    from torch import nn

    from erf.datasets import ExampleSet
    from erf.images import Framing
    from erf.storage.series import Series
    from erf.training import Plan, Recipe

_DATA, _RECIPE, _RUN, _OUTPUT, _ERF = (
    "What is learned from",
    "How it is trained",
    "How it is run",
    "What is written",
    "Receptive field over training",
)


def train(
    model: ModelName,
    images: Annotated[
        str,
        typer.Option(
            help="A manifest CSV with labels, the folder of BreakHis, ISIC or ChestX-ray14, or `phantom`.",
            rich_help_panel=_DATA,
            metavar="SOURCE",
        ),
    ] = "phantom",
    n: Annotated[
        int, typer.Option("-n", min=0, help="Images in all; default: all, or 200 phantoms.", rich_help_panel=_DATA)
    ] = 0,
    split: Annotated[
        str,
        typer.Option(
            help="Shares of train, val and test, drawn by patient where the data do not say.", rich_help_panel=_DATA
        ),
    ] = "80:10:10",
    where: Annotated[
        str,
        typer.Option(
            help="Train on the images with this value in a column, such as magnification=40X.",
            rich_help_panel=_DATA,
            metavar="COLUMN=VALUE",
        ),
    ] = "",
    classes: Annotated[
        str,
        typer.Option(help="Labels in the order of the outputs; of two, the second is positive.", rich_help_panel=_DATA),
    ] = "",
    allow_outside: Annotated[
        bool,
        typer.Option("--allow-outside", help="Paths of a manifest may lead out of its folder.", rich_help_panel=_DATA),
    ] = False,
    preset: Annotated[
        str,
        typer.Option(
            help="`hct-paper`, `phantom-small`, `srb-segmentation`, `srb-multilabel` or `magnification`.",
            rich_help_panel=_RECIPE,
        ),
    ] = "phantom-small",
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Change the recipe: `optimiser=asam`, `epochs=5`, or for one stage `patch.lr=1e-3`. Several times.",
            rich_help_panel=_RECIPE,
            metavar="NAME=VALUE",
        ),
    ] = None,
    stages: Annotated[
        str, typer.Option(help="Only these stages of the recipe, such as `image`.", rich_help_panel=_RECIPE)
    ] = "",
    weights: Annotated[
        str, typer.Option(help="Begin with these weights instead of random ones.", rich_help_panel=_RECIPE)
    ] = "none",
    model_arg: ModelArguments = None,
    trust: Trust = False,
    size: Size = "",
    normalise: Annotated[
        str,
        typer.Option(help="`standardise`, `unit` or `none`; default: the model's own.", rich_help_panel=_RECIPE),
    ] = "",
    resample: Annotated[
        bool,
        typer.Option(
            "--resample", help="Scale images to fit the frame, as for half resolution.", rich_help_panel=_RECIPE
        ),
    ] = False,
    seed: Annotated[
        int,
        typer.Option(
            min=0, max=LARGEST_SEED, help="Of untrained weights, order, patches and noise.", rich_help_panel=_RUN
        ),
    ] = 0,
    image_seed: Annotated[
        int,
        typer.Option(
            min=0, max=2**62, help="Of the draw of the images, their split, and phantoms.", rich_help_panel=_DATA
        ),
    ] = 0,
    device: Annotated[str, typer.Option(help="`auto` or `cpu`.", rich_help_panel=_RUN)] = "auto",
    precision: Annotated[
        str, typer.Option(help="`float32`, or `bfloat16` mixed with it.", rich_help_panel=_RUN)
    ] = "float32",
    micro_batch: Annotated[
        int,
        typer.Option(
            min=0,
            help="Images that go through the network at once; gradients add up to the batch. Default: the batch.",
            rich_help_panel=_RUN,
        ),
    ] = 0,
    workers: Annotated[int, typer.Option(min=0, help="Threads that make batches ahead.", rich_help_panel=_RUN)] = 2,
    erf_every: Annotated[
        int,
        typer.Option(
            min=0, help="Compute the ERF before training and after every so many epochs.", rich_help_panel=_ERF
        ),
    ] = 0,
    erf_images: Annotated[
        str, typer.Option(help="Folder, manifest or `phantom` for that; the same at every epoch.", rich_help_panel=_ERF)
    ] = "phantom",
    erf_n: Annotated[int, typer.Option(min=1, help="Images for that.", rich_help_panel=_ERF)] = 8,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the training; default: runs/MODEL.", rich_help_panel=_OUTPUT),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the training in that folder.", rich_help_panel=_OUTPUT)
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with an interrupted training of the same command.", rich_help_panel=_OUTPUT
        ),
    ] = False,
) -> None:
    """Train a network: patches first and whole images then, as the recipe says.

    The folder holds run.json (what was asked), log.csv (every update), epochs.json, curves.png, weights after every
    epoch in checkpoints/, and final.safetensors.

    Exit code 0: done; 2: refused, one line says why; 130, 143: interrupted, and --resume goes on to the same weights.
    """
    output = output or Path("runs") / file_name(model)
    with reported_errors():
        from erf.storage.outputs import check_folder
        from erf.training import PRESETS

        if preset not in PRESETS:
            fail(f"preset '{preset}' not known; expected one of {', '.join(PRESETS)}")
        check_folder(output)
        recipe = PRESETS[preset].changed(parse_options(change or [], "--set"))
        recipe = recipe.without(parse_list(stages)) if stages else recipe
        data = Data(
            source=images, n=n, seed=image_seed, split=split, classes=parse_list(classes), where=where,
            allow_outside=allow_outside, task=recipe.task,
        )  # fmt: skip
        examples = data.examples(frame_of(model, size))
        if not any(example.image.patient_id for example in examples):
            warn("no image names a patient; images of one patient may fall into different splits")
        options = with_classes(model, model_arg, examples.classes)
        network = build_network(model, weights, seed, size, options, trust=trust)
        plan = _plan(
            network, data, examples, recipe, seed, device, precision, micro_batch, workers, normalise, resample
        )
        watch = (
            _Watch(network, output / "erf.h5", erf_every, erf_images, erf_n, (seed, image_seed), plan.framing)
            if erf_every
            else None
        )
        _run(network, plan, output, watch, data, resume, overwrite)


def _plan(
    network: Network,
    data: Data,
    examples: "ExampleSet",
    recipe: "Recipe",
    seed: int,
    device: str,
    precision: str,
    micro_batch: int,
    workers: int,
    normalise: str,
    resample: bool,
) -> "Plan":
    from erf.images import Framing
    from erf.network.devices import pick_device
    from erf.training import Plan

    normalisation = normalise or network.card.normalisation
    chosen = data.chosen(examples)
    validated = any(example.split == "val" for example in chosen)
    return Plan(
        recipe,
        chosen.of_split("train"),
        chosen.of_split("val") if validated else None,
        Framing(network.size, network.channels, normalisation, resample),
        seed=seed,
        device=pick_device(device).type,
        precision=precision,
        micro_batch=micro_batch,
        workers=workers,
    )


def _run(
    network: Network,
    plan: "Plan",
    output: Path,
    watch: "_Watch | None",
    data: Data,
    resume: bool,
    overwrite: bool,
) -> None:
    from erf.cli.processes import Processes
    from erf.errors import InterruptedRunError
    from erf.models import reorthogonalise
    from erf.network.devices import reuse_freed_memory
    from erf.training import Folder, Training

    reuse_freed_memory()
    is_first = Processes.of_environment().is_first
    about = {
        "model": network.name,
        "model_options": dict(network.options),
        "weights": network.weights,
        "weights_sha256": network.weights_sha256,
        "erf": watch.about if watch else {},
        "trained_on": data.where,
        "data": asdict(data),
        "normalisation": plan.framing.normalisation,
        "resample": plan.framing.resample,
        "command": shlex.join(["erf", *sys.argv[1:]]),
        "versions": {name: version(name) for name in ("erf-toolkit", "torch", "accelerate")}
        | {"python": platform.python_version()},
    }
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        folder = stack.enter_context(Folder(output, resume, overwrite, is_first))
        progress = stack.enter_context(ProgressReport(network.name, quiet=not is_first))

        def after_epoch(model: "nn.Module", row: Mapping[str, Any]) -> None:
            progress.note(_epoch_words(row))
            if watch is not None and row["epoch"] % watch.every == 0:
                watch.add(model, row, progress)

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
            _report(output, state.epochs, watch)


def _epoch_words(row: Mapping[str, Any]) -> str:
    """Format the row of an epoch as one line."""
    words = [f"epoch {row['epoch']} ({row['stage']})"]
    words += [f"loss {row['loss']:.3f}"] if "loss" in row else []
    words += [
        f"{name.removeprefix('validation_').replace('_', ' ')} {value:.3f}"
        for name, value in row.items()
        if name.startswith("validation_") and name != "validation_loss"
    ]
    return ", ".join([*words, *([f"{row['seconds']:.0f} s"] if "seconds" in row else [])])


def _report(output: Path, epochs: "Sequence[Mapping[str, Any]]", watch: "_Watch | None") -> None:
    from erf.plotting.training import draw_curves

    draw_curves(output, output / "curves.png")
    written = [output / "final.safetensors", output / "curves.png"]
    if watch is not None:
        from erf.plotting.series import draw_series

        draw_series(watch.series(), watch.path.with_suffix(".png"), overwrite=True)
        written += [watch.path, watch.path.with_suffix(".png")]
    say(f"last: {_epoch_words(epochs[-1])}")
    say(f"written: {', '.join(map(str, written))}")


class _Watch:
    """Series of ERFs computed on the same images during a training."""

    def __init__(
        self, network: Network, path: Path, every: int, source: str, n: int, seeds: tuple[int, int], framing: "Framing"
    ) -> None:
        """Choose the images; `seeds` are those of the weights and of the training images."""
        from erf.images import load_images

        self.path, self.every = path, every
        self._network, self._seed, self._image_seed = network, seeds[0], seeds[1] + 1
        self._images = load_images(
            source,
            n=n,
            seed=self._image_seed,  # other phantoms than those used for training
            size=framing.size,
            channels=framing.channels,
            normalisation=framing.normalisation,
            resample=framing.resample,
        )
        (self._layer,) = network.layers("")
        self._source = source
        self.about = {"every": every, "images": source, "n": n, "layer": self._layer}

    def add(self, model: "nn.Module", row: Mapping[str, Any], progress: ProgressReport) -> None:
        """Compute the ERF of the network's current state and add it to the series in the file."""
        from erf.engine import compute
        from erf.results import Origin
        from erf.storage.series import Moment, Series, save_series

        origin = Origin(
            model=self._network.name,
            model_options=self._network.options,
            weights=f"{row['epoch']:03d}-{row['stage']}.safetensors" if row["epoch"] else "",
            image_seed=self._image_seed,
            source=self._source,
            command=shlex.join(["erf", *sys.argv[1:]]),
        )
        # A copy: the engine changes the memory format of the weights, and with it the last bits of the training.
        found = compute(
            copy.deepcopy(model), self._images, layer=self._layer, seed=self._seed, origin=origin, progress=progress
        )
        scores = {name: value for name, value in row.items() if name.startswith("validation_")}
        moment = Moment.of(found, row["epoch"], row["stage"], scores)
        is_first = row["epoch"] == 0 or not self.path.exists()
        series = Series.of(found, moment) if is_first else self.series().added(found, moment)
        save_series(series, self.path, overwrite=True)

    def series(self) -> "Series":
        """Load the series from the file."""
        from erf.storage.series import load_series

        return load_series(self.path)
