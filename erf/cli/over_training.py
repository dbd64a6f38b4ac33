"""`erf compute` with the weights of several epochs: one file with an epoch axis, and its picture."""

import glob
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from erf.cli.console import ProgressReport, StopRequest, fail, say, warn
from erf.errors import FormatError, InputError

if TYPE_CHECKING:
    from erf.cli.computing import Job
    from erf.storage.series import Series
    from erf.storage.staging import Staging


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


def compute_series(job: "Job", files: Sequence[Path]) -> None:
    """Compute the ERF of one unit with the weights of each file, on the same images; progress is kept for --resume."""
    from erf.cli.computing import interruption
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
        self, job: "Job", staging: "Staging", files: Sequence[Path], progress: ProgressReport, stop: StopRequest
    ) -> None:
        from erf.cli.computing import begin

        self._staging, self._progress, self._stop = staging, progress, stop
        images = job.selection.choose(job.network, progress)
        job.selection.check_outputs(staging.outputs, images)
        # The weights are not part of the identity, because a training in progress adds files.
        self._identity = job.identity(images) | {"weights sha256": ""}
        begin(job, [job.output], staging, self._identity)
        self._job = job.salted(staging.folder)
        self._images = self._job.hidden(images)
        self._moments = [(*moment, job.network.digest(moment[2])) for moment in sorted(_epochs(files))]

    def is_finished(self) -> bool:
        """Whether the results exist, or only have to be moved to their final names."""
        from erf.storage.outputs import check_new

        if self._staging.is_moving:
            return True
        if self._job.resume and not self._staging.has_progress and self._is_there():
            return True
        check_new(self._staging.outputs, self._job.overwrite)
        return False

    def _is_there(self) -> bool:
        if not all(path.exists() for path in self._staging.outputs):
            return False
        found = _kept(self._job.output)
        identity = self._job.identified(self._identity).identity
        return found is not None and [
            (one.epoch, one.provenance.weights_sha256, one.provenance.identity) for one in found.moments
        ] == [(epoch, digest, identity) for epoch, _, _, digest in self._moments]

    def compute(self) -> None:
        """Compute the missing results; write the series and its picture."""
        from erf.plotting.series import draw_series
        from erf.storage.series import save_series

        series = None
        for place, (epoch, stage, file, digest) in enumerate(self._moments):
            self._progress.note(f"{place + 1}/{len(self._moments)}: {file}")
            part = self._staging.folder / f"{digest[:16]}.h5"
            found = _kept(part) or self._measured(file, digest, part)
            found = replace(found, moments=(replace(found.moments[0], epoch=epoch, stage=stage),))
            series = found if series is None else series.joined(found)
        assert series is not None
        save_series(series, self._staging.part(self._job.output), overwrite=True)
        if self._job.picture is not None:
            definition = self._job.settings.definitions[0]
            draw_series(series, self._staging.part(self._job.picture), definition=definition, overwrite=True)

    def _measured(self, file: Path, digest: str, part: Path) -> "Series":
        """Compute and write the series of a single set of weights."""
        from erf.engine import compute_layers
        from erf.models import load_weights
        from erf.storage.checkpoint import EVERY, Checkpoint
        from erf.storage.series import Moment, Series, save_series

        job = self._job
        load_weights(job.network.model, file)
        origin = job.identified(self._identity, weights=str(file), weights_sha256=digest)
        with Checkpoint(part.with_suffix(""), resume=True, every=EVERY) as checkpoint:
            found = compute_layers(
                job.network.model, self._images, job.layers, job.settings, origin=origin, progress=self._progress,
                checkpoint=checkpoint, stop=self._stop, warn=warn,
            )  # fmt: skip
            if len(found) > 1:
                fail(f"{len(found)} units over training; expected one --unit")
            series = Series.of(found[0], Moment.of(found[0], 0))
            save_series(series, part, overwrite=True)
        return series


def _kept(path: Path) -> "Series | None":
    """Load the series of an earlier run; None if there is no readable file."""
    from erf.storage.series import load_series

    try:
        return load_series(path) if path.exists() else None
    except FormatError:
        return None


def _epochs(files: Sequence[Path]) -> list[tuple[int, str, Path]]:
    """Read epoch and stage from the headers that `erf train` writes; number the files if one is missing or repeated."""
    found = [(*_header(file), file) for file in files]
    if any(epoch < 0 for epoch, _, _ in found) or len({epoch for epoch, _, _ in found}) < len(found):
        return [(number, "", file) for number, file in enumerate(files)]
    return found


def _header(file: Path) -> tuple[int, str]:
    from erf.training.folder import read_header

    about = read_header(file)
    epoch, stage = about.get("epoch"), about.get("stage")
    return epoch if isinstance(epoch, int) else -1, stage if isinstance(stage, str) else ""
