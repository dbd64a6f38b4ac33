"""Execution of `erf compute` after parsing: choose images, compute, write, merge, draw and report."""

import json
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import typer

from erf.accumulation.merging import merge
from erf.cli.console import ProgressReport, StopRequest, complain, fail, say, warn
from erf.cli.network import Network
from erf.cli.processes import Processes
from erf.cli.remedies import in_words, translate
from erf.cli.tables import print_growth, print_profile, print_subsets
from erf.engine import compute_layers, find_units
from erf.engine.settings import Settings
from erf.errors import CheckpointError, ErfError, FormatError, InterruptedRunError, OutputExistsError
from erf.images import PHANTOM, ImageSet, load_images
from erf.images.readers import READ_SUFFIXES
from erf.network.devices import reuse_freed_memory
from erf.profiling import profiled
from erf.results import ERF, SHIPPED, Origin, tap_names
from erf.storage import FileSink, checkpoint, load
from erf.storage.checkpoint import Checkpoint, changed_images
from erf.storage.disk import complete_file
from erf.storage.outputs import check_new, check_no_input, check_not_within, check_outputs
from erf.storage.privacy import Anonymity, drawn_salt
from erf.storage.staging import Staging
from erf.uncertainty import Precision

_PATHLIKE = re.compile(r"[^\w.+-]")
"""Characters that are not safe in file names."""

_MOST_DRAWN = 12
"""Most fields drawn in one picture."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Choice of images and their preprocessing."""

    source: str
    n: int
    image_seed: int
    normalisation: str
    resample: bool
    mirror: bool
    lesions: int
    allow_outside: bool

    def choose(self, network: Network, progress: ProgressReport) -> ImageSet:
        """Choose the images for a network; warn if there are fewer than requested."""
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

    def check_outputs(self, outputs: Sequence[Path], images: ImageSet) -> None:
        """Raise `OutputError` if an output is one of the images, or the manifest."""
        files = [one.file for image in images.images for one in image.parts or (image,)]
        check_no_input(outputs, [Path(self.source), *files])
        if Path(self.source).is_dir():
            check_not_within(outputs, Path(self.source), READ_SUFFIXES)


@dataclass(frozen=True)
class Job:
    """One call of `erf compute`."""

    network: Network
    selection: Selection
    layers: Sequence[str]
    settings: Settings
    output: Path
    picture: Path | None
    overwrite: bool
    resume: bool
    part: tuple[int, int]
    """(i, n), counted from 1: the part of the images that this process computes."""
    processes: Processes
    privacy: Anonymity | None = None
    """Anonymisation settings; None to keep names."""

    def salted(self, folder: Path | None = None) -> "Job":
        """Return the job with a salt: the given one, the one saved in the run's progress folder, or a new one."""
        if self.privacy is None or self.privacy.salt:
            return self
        kept = folder / ".salt" if folder else None
        salt = kept.read_text() if kept and kept.exists() else drawn_salt()
        if kept:
            with complete_file(kept) as part:
                part.write_text(salt)
        return replace(self, privacy=replace(self.privacy, salt=salt))

    def hidden(self, images: ImageSet) -> ImageSet:
        """Return the images, anonymised if requested."""
        return images if self.privacy is None else self.privacy.images(images)

    def part_of(self, file: Path, staging: Staging) -> Path:
        """Return the path where this process writes its part of a file."""
        alone = self.processes.count == 1
        return staging.part(file) if alone else staging.folder / f"{self.processes.name}.{file.name}"

    def identity(self, images: ImageSet) -> dict[str, Any]:
        """Return all settings that determine the results; they are equal for all parts of a run."""
        network, settings = self.network, asdict(self.settings)
        kept = {name: value for name, value in settings.items() if name not in ("device", "workers", "strict")}
        selection = {
            name: value for name, value in asdict(self.selection).items() if name not in ("source", "allow_outside")
        }
        found = {
            "model": network.name if self.privacy is None else Path(network.name).name,
            "code": _code_digest(network.name),
            "model options": network.options,
            "weights sha256": network.weights_sha256,
            "layers": list(self.layers),
            "size": list(network.size),
            **kept,
            **selection,
            "images": _list_digest(images),
            "anonymous": self.privacy is not None,
        }
        return {name.replace("_", " "): json.loads(json.dumps(value, default=str)) for name, value in found.items()}

    def identified(self, identity: Mapping[str, Any], **weights: str) -> Origin:
        """Return the origin with a digest of the identity; `weights` replaces entries about the weights."""
        digest = sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        return self.origin(identity=digest, **weights)

    def origin(self, **known: str) -> Origin:
        """Return the provenance that the engine cannot know; `known` replaces some of its values."""
        found = replace(self._origin(), **known)  # type: ignore[arg-type]
        return found if self.privacy is None else self.privacy.origin(found)

    def _origin(self) -> Origin:
        return Origin(
            model=self.network.name,
            model_options=self.network.options,
            weights=self.network.weights,
            weights_sha256=self.network.weights_sha256,
            image_seed=self.selection.image_seed,
            source=self.selection.source,
            command=shlex.join(["erf", *sys.argv[1:]]),
        )

    def files(self) -> list[Path]:
        """List the output files, one per layer and unit; the network is run only if units have to be resolved."""
        single = self.settings.moves or not any(mark in str(self.settings.unit) for mark in (";", "grid:"))
        units = (
            [(layer, ()) for layer in self.layers]
            if single
            else find_units(self.network.model, self.network.input_shape, self.layers, self.settings)
        )
        names = []
        for layer, unit in units:
            of_layer = f".{_PATHLIKE.sub('-', layer)}" if len(self.layers) > 1 else ""
            of_unit = f".{'-'.join(map(str, unit))}" if len(units) > len(self.layers) else ""
            names.append(self.output.with_suffix(f"{of_layer}{of_unit}{self.output.suffix}"))
        return names


def _list_digest(images: ImageSet) -> str:
    """Digest of everything known about the images before decoding."""
    digest = sha256()
    for image in images.images:
        for one in (image, *image.parts):
            about = (one.id, one.path, one.laterality, one.view, one.patient_id, one.pixel_spacing, dict(one.columns))
            digest.update(repr((image.number, about)).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _code_digest(model: str) -> str:
    """Digest of the user's file that defines the network; '' if there is none."""
    file = Path(model.rpartition(":")[0] or model)
    return Network.digest(file) if file.is_file() else ""


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
        if not processes.told_by_first(is_finished):
            job = job.salted(staging.folder)
            _run(job, files, staging, job.hidden(images), job.identified(identity), progress, stop)
            processes.wait()
        if not processes.is_first:
            return False
        written = _publish(job, files, staging, is_finished)
    erfs = [load(file) for file in files]
    if written:
        _report(erfs, written, job)
    else:
        say(f"finished before: {', '.join(map(str, outputs))}")
    return bool(erfs[0].failures)


def compute_profiled(job: Job) -> bool:
    """Do the same as `compute_files`, and print a table of the stages' times."""
    start = time.perf_counter()
    with profiled() as profile:
        some_skipped = compute_files(job)
    print_profile(profile, time.perf_counter() - start)
    return some_skipped


def _is_finished(
    job: Job, files: Sequence[Path], staging: Staging, images: ImageSet, identity: Mapping[str, Any]
) -> bool:
    """Whether an earlier run of the same command wrote the results; also binds the saved progress to this run."""
    begin(job, files, staging, identity)
    if staging.is_moving:
        return True
    if not job.resume or staging.has_progress or not all(file.exists() for file in files):
        check_new(staging.outputs, job.overwrite)
        return False
    unlike = [words for file in files for words in _unlike_file(file, job, images, identity)]
    if unlike and not job.overwrite:
        raise OutputExistsError(f"{files[0]} is of another run: other {'; '.join(dict.fromkeys(unlike))}")
    return not unlike


def begin(job: Job, files: Sequence[Path], staging: Staging, identity: Mapping[str, Any]) -> None:
    """Bind the saved progress to a run, identified by its settings."""
    source = job.selection.source if job.selection.source == PHANTOM else os.path.abspath(job.selection.source)
    if job.privacy is not None:
        source = sha256(source.encode(errors="surrogateescape")).hexdigest()  # paths may contain names of people
    staging.begin(
        dict(identity)
        | {"source": source, "processes": job.processes.count, "shard": f"{job.part[0]}/{job.part[1]}"}
        | {"outputs": [path.name for path in files]}
    )


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
    drawing = job.picture if job.picture and len(files) <= _MOST_DRAWN else None
    drawn = [drawing] if drawing else []
    if is_finished and not staging.is_moving:
        if drawing is None or drawing.exists():
            return []
        _draw([load(file) for file in files], staging.part(drawing))
        staging.publish()
        return drawn
    if not staging.is_moving:
        if job.processes.count > 1:
            _merge(job, files, staging)
        if drawing is not None:
            _draw([load(staging.part(file)) for file in files], staging.part(drawing))
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
        fail(f"{in_words(error)}; what was done is kept, and the same command with --resume goes on from there")


def _report(erfs: Sequence[ERF], written: Sequence[Path], job: Job) -> None:
    last = erfs[-1]
    shown = last.provenance.shown_definition
    if len(erfs) == 1:
        print_subsets(last, shown)
    else:
        print_growth(erfs, shown)
    if job.settings.until is not None:
        _report_precision(last, job.settings.until)
    if job.picture is not None and len(erfs) > _MOST_DRAWN:
        warn(f"{len(erfs)} fields are too many for one picture; `erf plot` draws some of them")
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
    """Print warnings about single images and list the skipped ones."""
    for record in erf.images:
        if record.status == "ok" and record.message:
            warn(f"{record.path}: {translate(record.message)}")
    if erf.failures:
        warn(f"{len(erf.failures)} of {len(erf.images)} images were skipped:")
        for record in erf.failures:
            warn(f"  {translate(record.message)}")


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
