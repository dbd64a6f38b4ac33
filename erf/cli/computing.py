"""Execution of `erf compute`: compute, write, merge, draw and report."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from erf.accumulation.merging import merge
from erf.cli.console import complain, fail, say, warn
from erf.cli.job import Job
from erf.cli.outcome import draw, report
from erf.cli.remedies import message_of
from erf.cli.tables import print_stage_times
from erf.engine import compute_layers
from erf.errors import CheckpointError, ErfError, FormatError, InterruptedRunError, OutputExistsError
from erf.images import ImageSet, ProgressReport
from erf.network.devices import reuse_freed_memory
from erf.process import StopRequest
from erf.profiling import profiled
from erf.results import Origin
from erf.storage import FileSink, checkpoint, load
from erf.storage.checkpoint import Checkpoint, changed_images
from erf.storage.outputs import check_new, check_outputs
from erf.storage.staging import Staging


def compute_files(job: Job) -> bool:
    """Compute, write and report the results; return whether images were skipped."""
    files, processes = job.files(), job.processes
    outputs = [*files, *([job.picture] if job.picture else [])]
    check_outputs(outputs)
    staging = Staging(outputs, job.overwrite, job.resume)
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        stack.enter_context(interruption(stop, staging))
        stack.enter_context(processes)
        if processes.is_first:
            stack.enter_context(staging)
        progress = stack.enter_context(ProgressReport(job.network.name, quiet=not processes.is_first))
        images = job.selection.choose(job.network, progress)
        job.selection.check_outputs(outputs, images)
        identity = job.identity(images)
        is_finished = processes.is_first and _is_finished(job, files, staging, images, identity)
        if processes.is_first and not is_finished:
            job = job.salted(staging.folder)
        if not processes.from_first(is_finished):
            job = job.salted(staging.folder)
            _run(job, files, staging, job.hidden(images), job.identified(identity), progress, stop)
            processes.wait()
        if not processes.is_first:
            return False
        written = _publish(job, files, staging, is_finished)
    erfs = [load(file) for file in files]
    if written:
        report(erfs, written, job)
    else:
        say(f"finished before: {', '.join(map(str, outputs))}")
    return bool(erfs[0].failures)


def compute_profiled(job: Job) -> bool:
    """Do the same as `compute_files`, and print a table of the stages' times."""
    start = time.perf_counter()
    with profiled() as times:
        some_skipped = compute_files(job)
    print_stage_times(times, time.perf_counter() - start)
    return some_skipped


def _is_finished(
    job: Job, files: Sequence[Path], staging: Staging, images: ImageSet, identity: Mapping[str, Any]
) -> bool:
    """Whether an earlier run of the same command wrote the results; also binds the saved progress to this run."""
    job.begin(files, staging, identity)
    if staging.is_moving:
        return True
    if not job.resume or staging.has_progress or not all(file.exists() for file in files):
        check_new(staging.outputs, job.overwrite)
        return False
    unlike = [words for file in files for words in _unlike_file(file, job, images, identity)]
    if unlike and not job.overwrite:
        raise OutputExistsError(f"{files[0]} is of another run: other {'; '.join(dict.fromkeys(unlike))}")
    return not unlike


def _unlike_file(file: Path, job: Job, images: ImageSet, identity: Mapping[str, Any]) -> list[str]:
    """List the settings of an existing result that differ from the current run."""
    try:
        found = load(file)
    except FormatError:
        return ["kind of file"]
    before, now = found.provenance, job.identified(identity)
    names = ["model", "image_seed", "weights_sha256", *([] if job.privacy else ["source"])]
    differences = [name for name in names if getattr(before, name) != getattr(now, name)]
    differences += ["seed"] if before.seed != job.settings.seed else []
    if before.shard != (job.part if job.processes.count == 1 else (1, 1)):
        differences.append("shard")
    if before.identity != now.identity and not differences:
        differences.append("images or options")
    return differences or changed_images(images, found.images, file.stat().st_mtime)


def _run(
    job: Job,
    files: Sequence[Path],
    staging: Staging,
    images: ImageSet,
    origin: Origin,
    progress: ProgressReport,
    stop: StopRequest,
) -> None:
    """Compute the part of this process, unless an earlier process has completed it."""
    parts = [job.part_of(file, staging) for file in files]
    folder = staging.folder / job.processes.name
    if all(part.exists() for part in parts) and not (folder / "state.json").exists():
        changed = changed_images(images, load(parts[0]).images, parts[0].stat().st_mtime)
        if changed:
            raise CheckpointError(f"the progress in {staging.folder} is of another run: other {'; '.join(changed)}")
        return
    with ExitStack() as stack:
        saved = stack.enter_context(Checkpoint(folder, resume=True, every=checkpoint.EVERY))
        sinks = [stack.enter_context(FileSink(part, overwrite=True)) for part in parts]
        reuse_freed_memory()
        compute_layers(
            job.network.model,
            images if job.part == (1, 1) else images.shard(*job.part),
            job.layers,
            job.settings,
            origin=origin,
            sinks=sinks,
            scratch=job.output.parent,
            progress=progress,
            checkpoint=saved,
            stop=stop,
            warn=warn,
        )


def _publish(job: Job, files: Sequence[Path], staging: Staging, is_finished: bool) -> list[Path]:
    """Merge and draw the results, and move them to their final names; return the new files."""
    drawing = job.drawing(files)
    drawn = [drawing] if drawing else []
    if is_finished and not staging.is_moving:
        if drawing is None or drawing.exists():
            return []
        draw([load(file) for file in files], staging.part(drawing))
        staging.publish()
        return drawn
    if not staging.is_moving:
        if job.processes.count > 1:
            _merge(job, files, staging)
        if drawing is not None:
            draw([load(staging.part(file)) for file in files], staging.part(drawing))
    staging.publish()
    return [*files, *drawn]


def _merge(job: Job, files: Sequence[Path], staging: Staging) -> None:
    """Merge the parts of all processes into one file per result."""
    for file in files:
        names = [replace(job.processes, rank=rank).name for rank in range(job.processes.count)]
        parts = [load(staging.folder / f"{name}.{file.name}") for name in names]
        with FileSink(staging.part(file), overwrite=True) as sink:
            merge(parts, sink=sink)


@contextmanager
def interruption(stop: StopRequest, staging: Staging) -> Iterator[None]:
    """End an interrupted run with one line and the signal's exit code; after an error, say what is kept."""
    try:
        yield
    except InterruptedRunError as error:
        complain(f"{error}; the same command with --resume goes on from there")
        raise typer.Exit(128 + stop.number) from None
    except KeyboardInterrupt:
        complain("interrupted; the same command with --resume goes on from what was saved")
        raise typer.Exit(128 + (stop.number or 2)) from None
    except (OutputExistsError, CheckpointError):
        raise
    except ErfError as error:
        if not staging.has_progress:
            raise
        fail(f"{message_of(error)}; what was done is kept, and the same command with --resume goes on from there")
