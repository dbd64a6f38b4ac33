"""`erf evaluate`: scores of trained networks with intervals, alone and compared with each other."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from erf.cli.console import fail, parse_list, reported_errors, say
from erf.cli.network import build_network
from erf.cli.network_options import frame_of, with_classes
from erf.cli.options import (
    EVALUATION,
    IMAGES,
    NETWORK,
    OUTPUT,
    AllowOutside,
    Classes,
    Device,
    Examples,
    FitName,
    ImageSeed,
    Interpolation,
    ModelArguments,
    Overwrite,
    Size,
    Trust,
    Weights,
    Workers,
)
from erf.errors import FormatError
from erf.text import file_name

if TYPE_CHECKING:
    from erf.datasets import ExampleChoice
    from erf.evaluation import Predictions
    from erf.evaluation.tables import Table

_DIGITS = 16
"""Digits of the weights' SHA-256 stored with predictions."""

_KINDS = (".md", ".csv", ".json")


def evaluate(
    trained: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Folders of `erf train`, each evaluated on the test part of its own images, or files of predictions.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="A network, instead of folders.", rich_help_panel=NETWORK)
    ] = "",
    weights: Weights = "",
    model_arg: ModelArguments = None,
    trust: Trust = False,
    size: Size = "",
    images: Annotated[
        str,
        typer.Option(
            help="All images of a manifest CSV with labels, of the folder of a public data set, or `phantom`.",
            rich_help_panel=IMAGES,
            metavar="SOURCE",
        ),
    ] = "",
    n: Examples = 0,
    image_seed: ImageSeed = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the bootstrap.", rich_help_panel=EVALUATION)] = 0,
    part: Annotated[
        str, typer.Option(help="Split of a training's own images: `test`, `val` or `train`.", rich_help_panel=IMAGES)
    ] = "test",
    classes: Classes = "",
    task: Annotated[
        str, typer.Option(help="`classes`, `labels` or `masks`, with --model.", rich_help_panel=IMAGES)
    ] = "classes",
    fit: FitName = "",
    interpolation: Interpolation = "",
    allow_outside: AllowOutside = False,
    labels: Annotated[
        str,
        typer.Option(
            help="Labels in the tables, separated by commas; default: names of the folders.", rich_help_panel=EVALUATION
        ),
    ] = "",
    matrix: Annotated[
        str,
        typer.Option(
            help="Accuracy by this column of the training and test images, such as `magnification`.",
            rich_help_panel=EVALUATION,
            metavar="COLUMN",
        ),
    ] = "",
    by_patient: Annotated[
        bool,
        typer.Option(
            "--by-patient/--by-image",
            help="Resample whole patients if every image names one, or treat images as independent.",
            rich_help_panel=EVALUATION,
        ),
    ] = True,
    draws: Annotated[
        int, typer.Option(min=100, help="Number of bootstrap samples.", rich_help_panel=EVALUATION)
    ] = 10_000,
    device: Device = "auto",
    workers: Workers = 2,
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="CSV for the predictions of a single network; default: in its folder.", rich_help_panel=OUTPUT
        ),
    ] = None,
    output: Annotated[
        list[Path] | None,
        typer.Option("--output", "-o", help="The tables as .md, .csv or .json; several times.", rich_help_panel=OUTPUT),
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="PNG, SVG or PDF of the matrix, or of the AUC by finding.", rich_help_panel=OUTPUT),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Evaluate trained networks: AUC with intervals, by kind and size of findings, or accuracy of masks.

    Several networks are compared with the first on the same images, paired. `--matrix magnification` shows the
    accuracy of networks trained on one magnification on each of them.
    """
    with reported_errors():
        from erf.cli.output_files import writing
        from erf.cli.tables import print_table
        from erf.datasets import ExampleChoice
        from erf.plotting import SUFFIXES
        from erf.storage.outputs import check_outputs

        if not trained and not model:
            fail("nothing to evaluate; expected folders of `erf train`, files of predictions, or --model")
        if trained and model:
            fail("folders or files and --model at once; expected one of them")
        if predictions and len(trained or [model]) > 1:
            fail("--predictions is the file of a single network; folders get a file each")
        if predictions and trained and not trained[0].is_dir():
            fail("--predictions and a file of predictions at once; expected a folder of `erf train`")
        for paths, suffixes in ((output, _KINDS), ([picture], SUFFIXES[:-1]), ([predictions], (".csv",))):
            check_outputs([path for path in paths or () if path is not None], suffixes)
        outputs = [path for path in (*(output or ()), picture, predictions) if path is not None]
        inputs = [*(trained or ()), Path(weights), Path(images)]
        own = ExampleChoice(images, n, image_seed, classes=parse_list(classes), allow_outside=allow_outside, task=task)
        with writing(outputs, overwrite, inputs=inputs) as staging:
            target = staging.part(predictions) if predictions else None
            if model:
                data = replace(own, source=images or "phantom")
                found = [_of_model(model, weights, model_arg, size, data, (fit, interpolation), device, workers, trust)]
                _keep(found[0], target)
            else:
                found = [_of_path(path, own, part, device, workers, target, overwrite, trust) for path in trained or ()]
            names = parse_list(labels) or _names(trained or [], found)
            if len(names) != len(found):
                fail(f"{len(names)} labels for {len(found)} networks")
            tables = _tables(names, found, matrix, by_patient, draws, seed)
            _write(tables, [staging.part(path) for path in output or ()])
            if picture is not None:
                _draw(staging.part(picture), tables, found, matrix)
        for table in tables:
            print_table(table.title, list(table.columns), [list(row) for row in table.rows])


def _of_path(
    path: Path,
    own: "ExampleChoice",
    part: str,
    device: str,
    workers: int,
    predictions: Path | None,
    overwrite: bool,
    trust: bool,
) -> "Predictions":
    """Load a file of predictions, or compute the predictions of the network in a training folder."""
    from erf.building.weights import file_digest
    from erf.evaluation import load_predictions
    from erf.models.sources import is_code
    from erf.training.folder import read_about

    if not path.is_dir():
        return load_predictions(path)
    about = read_about(path)
    kept = predictions or path / ("predictions.csv" if own.source or part == "test" else f"predictions-{part}.csv")
    if kept.exists() and not own.source and not overwrite:
        found = load_predictions(kept)
        if found.weights == file_digest(path / "final.safetensors")[:_DIGITS]:
            return found
    if is_code(about["model"]) and not trust:
        fail(
            f"{path}: its network {about['model']} is code, and the folder may come from an untrusted source; if you "
            "trust it, give --trust"
        )
    data = _data_of(path, about)
    size = "x".join(map(str, about["size"]))
    options = [f"{name}={value}" for name, value in about["model_options"].items()]
    if own.source:
        data = replace(own, classes=tuple(about["classes"]), task=data.task)
    found = _predicted(
        about["model"], str(path / "final.safetensors"), options, size, data, "" if own.source else part,
        (about["normalisation"], about["fit"], about["interpolation"]), device, workers, about["trained_on"], trust,
    )  # fmt: skip
    if not own.source or predictions:
        _keep(found, kept)
    if not own.source and not predictions:
        say(f"written: {kept}")
    return found


def _data_of(path: Path, about: dict[str, Any]) -> "ExampleChoice":
    from erf.datasets import ExampleChoice

    values = about["data"] | {"classes": tuple(about["classes"])}
    try:
        return ExampleChoice(**values)
    except TypeError as error:
        raise FormatError(f"{path}: its run.json describes no images ({error})") from error


def _of_model(
    model: str,
    weights: str,
    model_arg: list[str] | None,
    size: str,
    data: "ExampleChoice",
    scaling: tuple[str, str],
    device: str,
    workers: int,
    trust: bool,
) -> "Predictions":
    options = list(model_arg or [])
    return _predicted(model, weights, options, size, data, "", ("", *scaling), device, workers, "", trust)


def _predicted(
    model: str,
    weights: str,
    options: Sequence[str],
    size: str,
    data: "ExampleChoice",
    part: str,
    preprocessing: tuple[str, str, str],
    device: str,
    workers: int,
    trained_on: str,
    trust: bool,
) -> "Predictions":
    """Compute the predictions of a network on images, or on one split of them."""
    from erf.images import ProgressReport
    from erf.network.devices import pick_device, reuse_freed_memory
    from erf.training import PRESETS, predict, task_of

    reuse_freed_memory()
    examples = data.examples(frame_of(model, size))
    examples = examples.of_split(part) if part else examples
    shipped = not options and len(examples.classes) == 2
    network = build_network(
        model, weights, 0, size, options if shipped else with_classes(model, options, examples.classes), trust=trust
    )
    recipe = replace(next(iter(PRESETS.values())), task=data.task)
    chosen = pick_device(device)
    job = task_of(recipe, examples.classes)
    job.check(examples)
    framing = network.framing(*preprocessing, source=data.source)
    with ProgressReport(model) as progress:
        return predict(
            network.model.to(chosen), examples, job, framing, kind=data.task, device=chosen, workers=workers,
            progress=progress, model_name=model, weights=network.weights_sha256[:_DIGITS], trained_on=trained_on,
        )  # fmt: skip


def _keep(found: "Predictions", path: Path | None) -> None:
    from erf.evaluation import save_predictions

    if path is not None:
        save_predictions(found, path, overwrite=True)


def _names(paths: Sequence[Path], found: "Sequence[Predictions]") -> tuple[str, ...]:
    """Return the networks' names if they are distinct, otherwise those of folders or files."""
    models = tuple(file_name(one.model) for one in found)
    if len(set(models)) == len(models):
        return models
    return tuple(path.name if path.is_dir() else path.stem for path in paths)


def _tables(
    names: Sequence[str], found: "Sequence[Predictions]", matrix: str, by_patient: bool, draws: int, seed: int
) -> "list[Table]":
    from erf.evaluation.matrix import matrices, tabulate_matrix
    from erf.evaluation.tables import tabulate_accuracy, tabulate_classes, tabulate_masks

    if matrix:
        return [tabulate_matrix(one) for one in matrices(found, matrix)]
    if found[0].task == "masks":
        return [tabulate_masks(names, found, by_patient, draws, seed)]
    tables = [tabulate_classes(names, found, by_patient, draws, seed)]
    return tables if found[0].task == "labels" else [*tables, tabulate_accuracy(names, found)]


def _write(tables: "Sequence[Table]", outputs: Sequence[Path]) -> None:
    from erf.evaluation.tables import to_text
    from erf.storage.files import complete_file

    for path in outputs:
        with complete_file(path) as file:
            file.write_text(to_text(tables, path.suffix[1:].lower()), encoding="utf-8")


def _draw(path: Path, tables: "Sequence[Table]", found: "Sequence[Predictions]", matrix: str) -> None:
    from erf.evaluation.matrix import matrices
    from erf.plotting.evaluation import draw_matrices, draw_questions

    if matrix:
        draw_matrices(matrices(found, matrix), path)
    else:
        draw_questions(tables[0], path)
