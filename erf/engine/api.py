"""Entry points of the engine: plan a run before its first image, then execute it."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from torch import nn

from erf.engine.accumulators import Accumulator, Measurement, Measurements
from erf.engine.batches import BatchGradients, sums_device
from erf.engine.choice import choose_for_run, chosen_before
from erf.engine.diagnosis import GradientDiagnosis
from erf.engine.memory import REMEDY, check_disk, worker_count
from erf.engine.plan import Plan, plan_run
from erf.engine.records import RecordBuilder
from erf.engine.resuming import RunProgress
from erf.engine.run import Run
from erf.engine.runner import BatchRunner
from erf.engine.self_check import Choice
from erf.engine.settings import Settings
from erf.engine.stopping import Stopping
from erf.errors import InputError, SelfCheckWarning
from erf.images import ImageSet, Progress
from erf.network.devices import deterministic_algorithms, memory_errors
from erf.results import ERF, MemorySink, Origin, Sink
from erf.storage.checkpoint import Checkpoint


def _warn(words: str) -> None:
    warnings.warn(words, SelfCheckWarning, stacklevel=4)


def compute_layers(
    model: nn.Module,
    images: ImageSet,
    layers: Sequence[str],
    settings: Settings | None = None,
    *,
    origin: Origin | None = None,
    sinks: Sequence[Sink] | None = None,
    scratch: Path | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
    stop: Callable[[], bool] = lambda: False,
    warn: Callable[[str], None] = _warn,
) -> tuple[ERF, ...]:
    """Compute the ERFs of units of one or more layers with one forward pass per image and one backward pass per unit.

    `compute` is simpler: it also builds the network, chooses the images and writes a file, for a single unit.

    Args:
        model: as in `compute`.
        images: as in `compute`.
        layers: paths of one or more layers, each once.
        settings: the options of `compute`; `until` refers to the measure of the last ERF.
        origin: as in `compute`.
        sinks: one destination per (layer, unit), in the order of the result; `find_units` lists them beforehand.
        scratch: as in `compute`.
        progress: as in `compute`.
        checkpoint: where progress is saved; a run continues from the progress found there.
        stop: polled after each batch; when it returns True, the run saves its progress and raises.
        warn: called with one line where the self-check makes the run fall back to a slower way of computing.

    Returns:
        One ERF per (layer, unit), ordered by layer, then by the units of each.

    Raises:
        CheckpointError: the saved progress belongs to another run or is damaged.
        InterruptedRunError: `stop` returned True.
        ErfError: the other errors of `compute`.

    Example:
        >>> import torch, erf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 3, padding=1))
        >>> images = erf.load_images("phantom", n=4, size=(64, 48))
        >>> first, second = erf.compute_layers(model, images, ["0", "1"], erf.Settings(device="cpu"))
        >>> first.provenance.field_size, second.provenance.field_size
        ((3.0, 3.0), (5.0, 5.0))
    """
    settings = settings or Settings()
    images.check_columns(settings.subset_by)
    with memory_errors(REMEDY):
        plan = plan_run(model, images, layers, settings, origin or Origin(model=type(model).__name__))
        _check_sinks(sinks, len(plan.units))
        saved = checkpoint.load() if checkpoint and checkpoint.exists() else None
        choice = chosen_before(saved) if saved else choose_for_run(plan)
        if choice.warning:
            warn(choice.warning)
        plan.check_memory(choice.way)
        gradients = plan.gradients(choice.way)
        measurements = _measurements(plan, choice, gradients, sinks, scratch)
        saving = RunProgress.of(plan, choice.way, checkpoint, saved)
        run = _run(plan, choice, gradients, measurements, saving, stop)
        with closing(measurements):
            run.begin()
            with choice.way.applied(model, plan.device), deterministic_algorithms(settings.deterministic):
                run.visit(plan.rounds, progress)
            return run.finish(progress)


def choose_run_way(model: nn.Module, images: ImageSet, layers: Sequence[str], settings: Settings) -> Choice:
    """Choose the way in which a run would compute, compared with the plain way on the first image."""
    with memory_errors(REMEDY):
        return choose_for_run(plan_run(model, images, layers, settings, Origin()))


def _measurements(
    plan: Plan, choice: Choice, gradients: BatchGradients, sinks: Sequence[Sink] | None, scratch: Path | None
) -> Measurements:
    """Build one measurement for each measured unit and sink; raise `OutputError` if the disk lacks room for them."""
    settings, members = plan.settings, []
    inputs = list(zip(settings.arguments.parts, settings.arguments.channels(plan.images.shape), strict=True))
    for unit, sink in zip(plan.units, sinks or [MemorySink() for _ in plan.units], strict=True):
        box = gradients.box(unit)
        provenance = plan.description.of(unit, box, choice.record_of(unit))
        accumulators = tuple(Accumulator(*each) for each in inputs)
        members.append(Measurement(unit, box, settings, provenance, sink, accumulators))
    boxes = [each.box for each in members for _ in each.accumulators]
    check_disk(boxes, sum(map(len, plan.rounds)), len(settings.definitions), scratch)
    return Measurements(tuple(members), sums_device(plan.device), scratch)


def _run(
    plan: Plan,
    choice: Choice,
    gradients: BatchGradients,
    measurements: Measurements,
    saving: RunProgress,
    stop: Callable[[], bool],
) -> Run:
    return Run(
        images=plan.images,
        batches=BatchRunner(gradients, GradientDiagnosis(gradients), choice.way.batch_size),
        measurements=measurements,
        records=RecordBuilder(measurements.members, plan.settings, plan.images.thumbnails),
        stopping=Stopping(plan.settings.until, plan.settings.shown_definition),
        progress=saving,
        workers=worker_count(plan.settings.workers, plan.device),
        strict=plan.settings.strict,
        stop=stop,
    )


def _check_sinks(sinks: Sequence[Sink] | None, units: int) -> None:
    if sinks is not None and len(sinks) != units:
        raise InputError(
            f"{units} units for {len(sinks)} results; choose one, average them with aligned, or use compute_layers"
        )
