"""`erf compute` with the weights of several epochs: one file with an epoch axis, and its picture."""

import glob
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from erf.cli.console import fail, say, warn
from erf.errors import InputError
from erf.process import StopRequest

if TYPE_CHECKING:
    from erf.cli.job import Job
    from erf.images import ProgressReport
    from erf.results import Origin
    from erf.storage.staging import Staging
    from erf.tracking import Snapshot


def weight_files(text: str, further: Sequence[Path]) -> list[Path]:
    """List the files of `--weights` if it names several: by a pattern, or as names that the shell expanded.

    Raises:
        InputError: no file matches the pattern.
    """
    if further:
        return [Path(text), *further]
    if not text or Path(text).exists() or not any(mark in text for mark in "*?["):
        return []
    found = sorted(Path(name) for name in glob.glob(text))
    if not found:
        raise InputError(f"--weights '{text}': no file matches; expected weights such as runs/hct/checkpoints/*")
    return found


def compute_snapshots(job: "Job", files: Sequence[Path]) -> None:
    """Compute the ERF of one unit with the weights of each file, on the same images; progress is kept for --resume."""
    from erf.cli.computing import interruption
    from erf.images import ProgressReport
    from erf.storage.outputs import check_no_input
    from erf.storage.staging import Staging

    if job.processes.count > 1 or job.part != (1, 1):
        fail("several --weights run in one process, without --shard")
    if len(job.layers) > 1:
        fail(f"{len(job.layers)} layers over training; expected one --layer")
    outputs = [job.output, *([job.picture] if job.picture else [])]
    check_no_input(outputs, files)
    staging = Staging(outputs, job.overwrite, job.resume)
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        stack.enter_context(interruption(stop, staging))
        stack.enter_context(staging)
        progress = stack.enter_context(ProgressReport(job.network.name))
        run = _Run(job, staging, files, progress, stop)
        is_finished = run.is_finished()
        if not is_finished:
            run.compute()
        staging.publish()
    say(f"{'finished before' if is_finished else 'written'}: {', '.join(map(str, outputs))}")


class _Run:
    """Computation of a series, one set of weights at a time; each result is kept in a file until all are done."""

    def __init__(
        self, job: "Job", staging: "Staging", files: Sequence[Path], progress: "ProgressReport", stop: StopRequest
    ) -> None:
        from erf.tracking import find_snapshots

        self._staging, self._progress, self._stop = staging, progress, stop
        images = job.selection.choose(job.network, progress)
        job.selection.check_outputs(staging.outputs, images)
        # The weights are not part of the identity, because a training in progress adds files.
        self._identity = job.identity(images) | {"weights sha256": ""}
        job.begin([job.output], staging, self._identity)
        self._job = job.salted(staging.folder)
        self._images = self._job.hidden(images)
        self._snapshots = find_snapshots(files)

    def is_finished(self) -> bool:
        """Whether the results exist, or only have to be moved to their final names."""
        return self._staging.is_finished(self._staging.outputs, self._differences)

    def _differences(self) -> list[str]:
        from erf.tracking.snapshots import kept_series

        found, identity = kept_series(self._job.output), self._job.identified(self._identity).identity
        before = found and [
            (one.epoch, one.provenance.weights_sha256, one.provenance.identity) for one in found.moments
        ]
        now = [(one.epoch, one.sha256, identity) for one in self._snapshots]
        return [] if before == now else ["weights, images or options"]

    def compute(self) -> None:
        """Compute the missing results; write the series and its picture."""
        from erf.plotting.series import plot_series
        from erf.storage.series import save_series
        from erf.tracking import compute_series

        job = self._job
        series = compute_series(
            job.network, self._images, self._snapshots, job.layers[0], job.settings, origin=self._origin,
            folder=self._staging.folder, note=self._progress.note, progress=self._progress, stop=self._stop, warn=warn,
        )  # fmt: skip
        save_series(series, self._staging.part(job.output), overwrite=True)
        if job.picture is not None:
            definition = job.settings.definitions[0]
            plot_series(series, self._staging.part(job.picture), definition=definition, overwrite=True)

    def _origin(self, snapshot: "Snapshot") -> "Origin":
        return self._job.identified(self._identity, weights=str(snapshot.file), weights_sha256=snapshot.sha256)
