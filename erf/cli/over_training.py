"""`erf compute` with the weights of several epochs: one file with an epoch axis, and its picture."""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from erf.cli.console import ProgressReport, fail, warn
from erf.errors import InputError

if TYPE_CHECKING:
    from erf.cli.computing import Job
    from erf.series import Series


def weight_files(text: str, further: Sequence[Path]) -> list[Path]:
    """The files that `--weights` names, where they are several: a pattern, or names that a shell has made of one."""
    if further:
        return [Path(text), *further]
    if not text or Path(text).exists() or not any(mark in text for mark in "*?["):
        return []
    found = sorted(Path(name) for name in glob.glob(text))
    if not found:
        raise InputError(f"--weights '{text}': no file matches; expected weights such as runs/hct/checkpoints/*")
    return found


def compute_series(job: "Job", files: Sequence[Path]) -> None:
    """The ERF of the same unit with the weights of each file, on the same images."""
    from erf.cli.writing import writing
    from erf.plotting.series import draw_series
    from erf.series import save_series

    if job.processes.count > 1 or job.part != (1, 1) or job.resume:
        fail("several --weights run in one process, without --shard and --resume")
    if len(job.layers) > 1:
        fail(f"{len(job.layers)} layers over training; expected one --layer")
    outputs = [job.output, *([job.picture] if job.picture else [])]
    with writing(outputs, job.overwrite, inputs=files) as staging:
        series = _series(job, files, outputs)
        save_series(series, staging.part(job.output))
        if job.picture is not None:
            draw_series(series, staging.part(job.picture), definition=job.settings.definitions[0])


def _series(job: "Job", files: Sequence[Path], outputs: Sequence[Path]) -> "Series":
    from erf.engine import compute_layers
    from erf.models import WeightsError, load_weights
    from erf.series import Moment, Series

    series = None
    with ProgressReport(job.network.name) as progress:
        images = job.selection.choose(job.network, progress)
        job.selection.check_outputs(outputs, images)
        job = job.salted()
        images = job.hidden(images)
        for place, (epoch, stage, file) in enumerate(sorted(_epochs(files))):
            try:
                load_weights(job.network.model, file)
            except WeightsError as error:
                fail(str(error))
            origin = job.origin(weights=str(file), weights_sha256=job.network.digest(file))
            progress.note(f"{place + 1}/{len(files)}: {file}")
            erfs = compute_layers(
                job.network.model, images, job.layers, job.settings, origin=origin, progress=progress, warn=warn
            )
            if len(erfs) > 1:
                fail(f"{len(erfs)} units over training; expected one --unit")
            moment = Moment.of(erfs[0], epoch, stage)
            series = Series.of(erfs[0], moment) if series is None else series.added(erfs[0], moment)
    assert series is not None
    return series


def _epochs(files: Sequence[Path]) -> list[tuple[int, str, Path]]:
    """Epoch and stage of each file, as `erf train` writes them into its header; else files are counted."""
    found = [(*_header(file), file) for file in files]
    if any(epoch < 0 for epoch, _, _ in found) or len({epoch for epoch, _, _ in found}) < len(found):
        return [(number, "", file) for number, file in enumerate(files)]
    return found


def _header(file: Path) -> tuple[int, str]:
    from erf.training.folder import read_header

    about = read_header(file)
    epoch, stage = about.get("epoch"), about.get("stage")
    return epoch if isinstance(epoch, int) else -1, stage if isinstance(stage, str) else ""
