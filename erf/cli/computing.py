"""What `erf compute` does once its options are read: images chosen, results written, merged, drawn, reported."""

import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import typer

from erf import checkpoint
from erf.checkpoint import Checkpoint
from erf.cli.console import ProgressReport, StopRequest, complain, say, warn
from erf.cli.network import Network
from erf.cli.processes import Processes
from erf.cli.tables import print_growth, print_subsets
from erf.devices import reuse_freed_memory
from erf.disk import check_free, complete_file
from erf.engine import compute_layers, find_spots
from erf.errors import InterruptedRunError
from erf.images import ImageSet, load_images
from erf.intervals import Precision
from erf.privacy import Anonymity, drawn_salt
from erf.result import ERF, SHIPPED, Origin, tap_names
from erf.settings import Settings
from erf.storage import FileSink, remove_parts

_MOST_DRAWN = 12
"""Fields in one picture."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which images are taken, and how they are brought to the frame."""

    source: str
    n: int
    image_seed: int
    normalisation: str
    resample: bool
    mirror: bool
    lesions: int
    allow_outside: bool

    def choose(self, network: Network, progress: ProgressReport) -> ImageSet:
        """The images for a network; says so where there are fewer than were asked for."""
        chosen = load_images(
            self.source,
            n=self.n,
            seed=self.image_seed,
            size=network.size,
            channels=network.channels,
            inputs=network.arguments.names,
            normalisation=self.normalisation,
            resample=self.resample,
            mirror=self.mirror,
            lesions=self.lesions,
            allow_outside=self.allow_outside,
            progress=progress,
        )
        if len(chosen) < self.n:
            warn(f"{self.source} has {len(chosen)} images, {self.n} were asked for; all of them are used")
        return chosen


@dataclass(frozen=True)
class Job:
    """One call of `erf compute`."""

    network: Network
    seed: int
    """Of untrained weights and of random numbers in the network."""
    selection: Selection
    layers: Sequence[str]
    settings: Settings
    output: Path
    picture: Path | None
    overwrite: bool
    resume: bool
    part: tuple[int, int]
    """(i, n), counted from 1: which part of the images is this process's."""
    processes: Processes
    privacy: Anonymity | None = None
    """How names are hidden; None where they are kept."""

    def salted(self, folder: Path | None) -> "Job":
        """The same with a salt: the one given, or the one kept in the folder of the run's progress, or a new one."""
        if self.privacy is None or self.privacy.salt:
            return self
        kept = folder / "salt" if folder else None
        salt = kept.read_text() if kept and kept.exists() else drawn_salt()
        if kept:
            with complete_file(kept) as part:
                part.write_text(salt)
        return replace(self, privacy=replace(self.privacy, salt=salt))

    def images(self, progress: ProgressReport) -> ImageSet:
        """Those of this process, under the names that results may have."""
        chosen = self.selection.choose(self.network, progress)
        mine = chosen if self.part == (1, 1) else chosen.shard(*self.part)
        return mine if self.privacy is None else self.privacy.images(mine)

    def origin(self, **weights: str) -> Origin:
        """What the engine cannot know about the run; `weights` are other ones than the network's."""
        found = replace(self._origin(), **weights)  # type: ignore[arg-type]
        return found if self.privacy is None else self.privacy.origin(found)

    def _origin(self) -> Origin:
        return Origin(
            model=self.network.name,
            model_options=self.network.options,
            weights=self.network.weights,
            weights_sha256=self.network.weights_sha256,
            seed=self.seed,
            image_seed=self.selection.image_seed,
            source=self.selection.source,
            command=shlex.join(["erf", *sys.argv[1:]]),
        )

    def files(self) -> list[Path]:
        """A file for each unit of each layer; units are known beforehand only where there is one of each."""
        single = self.settings.moves or not any(mark in str(self.settings.unit) for mark in (";", "grid:"))
        spots = (
            [(layer, ()) for layer in self.layers]
            if single
            else find_spots(self.network.model, self.network.input_shape, self.layers, self.settings)
        )
        names = []
        for layer, unit in spots:
            of_layer = f".{layer.replace(':', '-')}" if len(self.layers) > 1 else ""
            of_unit = f".{'-'.join(map(str, unit))}" if len(spots) > len(self.layers) else ""
            names.append(self.output.with_suffix(f"{of_layer}{of_unit}{self.output.suffix}"))
        return names


def compute_files(job: Job) -> bool:
    """Compute, write and report; whether images were skipped."""
    files, processes = job.files(), job.processes
    parts = [processes.part(file) for file in files]
    for file in files:
        check_free(file, job.overwrite)
    # A process that was done before another one failed keeps its part.
    is_done = job.resume and processes.count > 1 and all(file.exists() for file in parts)
    erfs = () if is_done else _run(job, parts)
    if processes.count > 1:
        erfs = processes.gather(files, job.overwrite)
    if processes.is_first:
        _report(erfs, files, job)
    return processes.is_first and bool(erfs[0].failures)


def _run(job: Job, files: Sequence[Path]) -> tuple[ERF, ...]:
    """Compute the part of this process."""
    with ExitStack() as stack:
        stop = stack.enter_context(StopRequest())
        stack.enter_context(_interruption(stop))
        saved = stack.enter_context(_checkpoint(files[-1], job))
        for file in files:
            remove_parts(file)
        replaced = job.overwrite or job.processes.count > 1
        sinks = [stack.enter_context(FileSink(file, overwrite=replaced)) for file in files]
        reuse_freed_memory()
        progress = stack.enter_context(ProgressReport(job.network.name, quiet=not job.processes.is_first))
        job = job.salted(saved.folder)
        return compute_layers(
            job.network.model,
            job.images(progress),
            job.layers,
            job.settings,
            origin=job.origin(),
            sinks=sinks,
            scratch=job.output.parent,
            progress=progress,
            checkpoint=saved,
            stop=stop,
            warn=warn,
        )


def _checkpoint(output: Path, job: Job) -> Checkpoint:
    folder = output.with_name(f".{output.name}.progress")
    return Checkpoint(folder, job.resume, fresh=job.overwrite, every=checkpoint.EVERY)


@contextmanager
def _interruption(stop: StopRequest) -> Iterator[None]:
    """Ends an interrupted run with one line and the signal's exit code."""
    try:
        yield
    except InterruptedRunError as error:
        complain(f"{error}; the same command with --resume goes on from there")
        raise typer.Exit(128 + stop.number) from None
    except KeyboardInterrupt:
        complain("interrupted; the same command with --resume goes on from what was saved")
        raise typer.Exit(128 + (stop.number or 2)) from None


def _report(erfs: Sequence[ERF], files: Sequence[Path], job: Job) -> None:
    last, written = erfs[-1], list(files)
    shown = last.provenance.shown_definition
    if len(erfs) == 1:
        print_subsets(last, shown)
    else:
        print_growth(erfs, shown)
    if job.settings.until is not None:
        _report_precision(last, job.settings.until)
    if job.picture is not None and len(erfs) > _MOST_DRAWN:
        warn(f"{len(erfs)} fields are too many for one picture; `erf plot` draws some of them")
    elif job.picture is not None:
        written.append(_draw(erfs, job.picture))
    say("written: " + ", ".join(map(str, written)))
    if last.provenance.weights.startswith(SHIPPED):
        say("Weights: those of the package, trained on phantoms; --weights none gives the untrained network.")
    _report_images(last)


def _draw(erfs: Sequence[ERF], picture: Path) -> Path:
    from erf.plotting import plot

    shown = erfs[-1].provenance.shown_definition
    several = len({erf.provenance.layer for erf in erfs}) == len(erfs) > 1
    layout = "growth" if several and shown != "signed" else "overview"
    labels = tap_names([erf.provenance for erf in erfs]) if len(erfs) > 1 and not several else None
    return plot(erfs, picture, labels=labels, definition=shown, layout=layout, overwrite=True)


def _report_images(erf: ERF) -> None:
    """What is to be known of single images."""
    for record in erf.images:
        if record.status == "ok" and record.message:
            warn(f"{record.path}: {record.message}")
    if erf.failures:
        warn(f"{len(erf.failures)} of {len(erf.images)} images were skipped:")
        for record in erf.failures:
            warn(f"  {record.message}")


def _report_precision(erf: ERF, precision: Precision) -> None:
    from erf.comparison.formats import interval_words
    from erf.measures import MEASURES, observe

    measure = MEASURES[precision.measure]
    interval = precision.estimate(observe(erf, definition=erf.provenance.shown_definition))
    share = interval.half_width / abs(interval.value)
    words = f"{measure.name} {interval_words(interval, measure.factor)} {measure.unit}, ± {100 * share:.1f} %"
    say(f"after {erf.count()} images: {words}")
    if not precision.is_reached(interval):
        warn(f"{100 * precision.relative:g} % was asked for, which these images do not reach; ask for more with -n")
