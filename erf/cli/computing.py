"""Execution of `erf compute`: compute, write, merge, draw and report."""

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from erf.accumulation.merging import merge
from erf.cli.console import complain, fail, say, warn
from erf.cli.job import Job
from erf.cli.remedies import message_of
from erf.cli.run_report import draw, report
from erf.cli.tables import print_stage_times
from erf.engine.file_run import FileRun
from erf.errors import CheckpointError, ErfError, InterruptedRunError, OutputExistsError
from erf.images import ProgressReport
from erf.network.devices import reuse_freed_memory
from erf.process import StopRequest
from erf.profiling import profiled
from erf.storage import FileSink, load
from erf.storage.outputs import check_outputs
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
        run = FileRun(staging, files, images, job.identified(identity))
        is_finished = processes.is_first and _is_finished(job, run, identity)
        if processes.is_first and not is_finished:
            job = job.salted(staging.folder)
        if not processes.from_first(is_finished):
            job = job.salted(staging.folder)
            _compute(job, replace(run, images=job.hidden(images), origin=job.identified(identity)), progress, stop)
            processes.wait()
        if not processes.is_first:
            return False
        written = _publish(job, run, is_finished)
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


def _is_finished(job: Job, run: FileRun, identity: Mapping[str, Any]) -> bool:
    """Whether an earlier run of the same command wrote the results; also binds the saved progress to this run."""
    job.begin(run.files, run.staging, identity)
    names = ["model", "image_seed", "weights_sha256", *([] if job.privacy else ["source"])]
    expected = {name: getattr(run.origin, name) for name in names}
    shard = job.part if job.processes.count == 1 else (1, 1)
    return run.is_finished(**expected, seed=job.settings.seed, shard=shard)


def _compute(job: Job, run: FileRun, progress: ProgressReport, stop: StopRequest) -> None:
    """Compute the part of this process."""
    reuse_freed_memory()
    mine = run if job.part == (1, 1) else replace(run, images=run.images.shard(*job.part))
    process = job.processes.name if job.processes.count > 1 else ""
    mine.compute(job.network.model, job.layers, job.settings, process=process, progress=progress, stop=stop, warn=warn)


def _publish(job: Job, run: FileRun, is_finished: bool) -> list[Path]:
    """Merge and draw the results, and move them to their final names; return the new files."""
    files, staging, drawing = run.files, run.staging, job.drawing(run.files)
    drawn = [drawing] if drawing else []
    if is_finished and not staging.is_moving:
        if drawing is None or drawing.exists():
            return []
        draw([load(file) for file in files], staging.part(drawing))
        staging.publish()
        return drawn
    if not staging.is_moving:
        if job.processes.count > 1:
            _merge(job, run)
        if drawing is not None:
            draw([load(staging.part(file)) for file in files], staging.part(drawing))
    staging.publish()
    return [*files, *drawn]


def _merge(job: Job, run: FileRun) -> None:
    """Merge the parts of all processes into one file per result."""
    names = [replace(job.processes, rank=rank).name for rank in range(job.processes.count)]
    for file in run.files:
        with FileSink(run.staging.part(file), overwrite=True) as sink:
            merge([load(run.part(file, name)) for name in names], sink=sink)


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
