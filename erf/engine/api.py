"""Entry points of the engine: plan a run before its first image, then execute it."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from erf.definitions import DEFAULT_DEFINITION
from erf.engine.accumulators import Accumulator, Measurement, Measurements
from erf.engine.batches import BatchGradients, sums_device
from erf.engine.choice import choose, chosen_before
from erf.engine.diagnosis import GradientDiagnosis
from erf.engine.memory import REMEDY, check_disk, worker_count
from erf.engine.plan import Plan, plan_run
from erf.engine.records import RecordBuilder
from erf.engine.resuming import RunProgress
from erf.engine.run import Run
from erf.engine.runner import BatchRunner
from erf.engine.self_check import Choice
from erf.engine.settings import Settings
from erf.engine.stopping import StoppingRule
from erf.errors import InputError, SelfCheckWarning
from erf.gradients.units import CENTER, UnitChoice
from erf.images import ImageSet, Progress
from erf.network.devices import deterministic_algorithms, memory_errors
from erf.network.inputs import Arguments
from erf.results import ERF, MemorySink, Origin, Sink
from erf.storage.checkpoint import Checkpoint

if TYPE_CHECKING:
    from erf.uncertainty import Precision


def _warn(words: str) -> None:
    warnings.warn(words, SelfCheckWarning, stacklevel=4)


def compute(
    model: nn.Module,
    images: ImageSet,
    *,
    layer: str = "final",
    unit: UnitChoice = CENTER,
    channel: int | str = "all",
    aligned: bool = False,
    method: str = "gradient",
    method_options: Mapping[str, Any] | None = None,
    arguments: Arguments = Arguments(),  # noqa: B008 (frozen)
    definitions: Sequence[str] = (DEFAULT_DEFINITION,),
    subset_by: Sequence[str] = (),
    projections: int = 1,
    seed: int = 0,
    precision: str = "float32",
    device: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    deterministic: bool = False,
    strict: bool = False,
    until: "Precision | None" = None,
    crop: bool = True,
    self_check: bool = True,
    origin: Origin | None = None,
    sink: Sink | None = None,
    scratch: Path | None = None,
    progress: Progress | None = None,
) -> ERF:
    """Compute the effective receptive field of one unit: statistics over images of its input gradient.

    Follows Luo et al. (NIPS 2016): a gradient of 1 on all channels of the unit, zero elsewhere, is back-propagated to
    the input, with the model in eval mode and its parameters frozen. The signed gradient (C, H, W) of each image
    becomes a map (H, W) under each of the `definitions`. Mean and variance over images are computed for the subsets
    `all`, `left` and `right` and, for each column in `subset_by`, `column=value`.

    Args:
        model: any module whose `layer` yields a map (N, C, h, w); it is moved to `device`.
        images: from `load_images` or `from_arrays`.
        layer: path of the module whose output holds the unit; `output` for the model's own output, and `layer:key`
            where a module returns several tensors.
        unit: 'center' for (h // 2, w // 2), (y, x) in the layer's map, or any other `UnitChoice`.
        channel: 'all', the number of one channel, or 'signs' for random signs, whose squares estimate the sum of
            squares of all channels without bias.
        aligned: average the maps of several units, shifted so that the units coincide; maps of units that differ
            between images are always aligned.
        method: one of `METHODS`, by default the gradient.
        method_options: options of the method.
        arguments: how an image is passed to the model, where that is not as one argument (N, C, H, W).
        definitions: one or more of `DEFINITIONS`; they share the pass, and each adds two maps to memory and file.
        subset_by: columns of the manifest; each distinct value defines a subset.
        projections: number of draws of the model's random projections; each map is the mean over the draws, and each
            draw takes a pass.
        seed: seed of random signs, random projections and random numbers that the network draws.
        precision: 'float32', the model's own precision, or 'bfloat16' for convolutions and matrix products in half of
            it; the file then records how much the gradient on noise differs.
        device: 'cpu', 'cuda', 'mps' or 'auto'.
        batch_size: images per pass; None for as many small images as make a pass efficient, or a single large one. If
            memory runs out, images go one by one.
        workers: threads that decode ahead; None for one on a CPU and four with a GPU.
        deterministic: use only algorithms that give the same bits each time.
        strict: stop at the first image that cannot be used, instead of skipping it.
        until: stop as soon as a measure is known to this precision; by default all images are used.
        crop: where the theoretical receptive field is finite, feed the network only the part of the image that
            contains it; the gradient is the same and takes less time.
        self_check: compare, on the first image, the fast way of computing with the plain one, and fall back to a slower
            one where they differ by more than rounding; a `SelfCheckWarning` and the file report it.
        origin: facts for the record that only the caller knows.
        sink: destination of the results, such as a `FileSink`; by default they are collected in memory.
        scratch: folder for temporary files of sums, by default the system's.
        progress: called with a stage (`images`, then `maps`), the number done, and the total.

    Returns:
        The ERF with its maps by subset and definition, the records of all images, and the provenance.

    Raises:
        LayerError: the layer or unit does not exist, or yields no map.
        ImageError: with `strict`, an image cannot be used; without, all of them cannot.
        InsufficientMemoryError: the run does not fit into memory.
        InputError: settings, images and model do not fit together.
        OutputError: the temporary folder has too little free space, or a sink cannot be written.

    Example:
        >>> import torch, erf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Conv2d(4, 2, 3, padding=1))
        >>> images = erf.load_images("phantom", n=4, size=(64, 48))
        >>> result = erf.compute(model, images, layer="1", device="cpu")
        >>> result.provenance.field_size  # each of two convolutions adds a pixel on each side
        (5.0, 5.0)
        >>> result.statistics("left").mean.shape
        (64, 48)
    """
    settings = Settings(
        unit=unit,
        channel=channel,
        aligned=aligned,
        method=method,
        method_options=method_options,
        arguments=arguments,
        definitions=tuple(definitions),
        subset_by=tuple(subset_by),
        projections=projections,
        seed=seed,
        precision=precision,
        device=device,
        batch_size=batch_size,
        workers=workers,
        deterministic=deterministic,
        strict=strict,
        until=until,
        crop=crop,
        self_check=self_check,
    )
    sinks = [MemorySink() if sink is None else sink]
    (erf,) = compute_layers(
        model, images, [layer], settings, origin=origin, sinks=sinks, scratch=scratch, progress=progress
    )
    return erf


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
        choice = chosen_before(saved) if saved else choose(plan)
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
        return choose(plan_run(model, images, layers, settings, Origin()))


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
        stopping=StoppingRule(plan.settings.until, plan.settings.shown_definition),
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
