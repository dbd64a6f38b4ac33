"""Entry points of the engine: plan a run before its first image, then execute it."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from itertools import islice
from pathlib import Path
from platform import python_version
from shutil import disk_usage
from tempfile import gettempdir
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from erf.definitions import DEFAULT_DEFINITION
from erf.engine.batches import BatchGradients, Located, TappedUnit
from erf.engine.passes import in_way, plan_passes, whole_passes, with_bands
from erf.engine.run import Lane, Run, Tap, cells_of
from erf.engine.self_check import Choice, choose_way, unchecked
from erf.engine.settings import PRECISIONS, Settings
from erf.errors import (
    CheckpointError,
    InputError,
    InsufficientMemoryError,
    LayerError,
    NoGradientError,
    OutputError,
    SelfCheckWarning,
)
from erf.gradients.autograd import unit_gradients
from erf.gradients.flow import switched_off
from erf.gradients.methods import is_random
from erf.gradients.units import CENTER, UnitChoice, center_unit, resolve_units
from erf.gradients.way import PLAIN, Way
from erf.gradients.windows import Spot, Window
from erf.images import Failure, ImageSet, Progress
from erf.network.devices import (
    available_memory,
    deterministic_algorithms,
    float32_convolutions,
    is_memory_error,
    memory_errors,
    memory_layout,
    pick_device,
    scarce_memory,
)
from erf.network.inputs import Arguments
from erf.network.layers import Unit
from erf.network.modes import frozen, reduced_precision
from erf.network.projections import Projections
from erf.profiling import stage
from erf.results import ERF, MemorySink, Origin, Provenance, Sink
from erf.results.grid import small_block
from erf.storage.checkpoint import Checkpoint, Saved
from erf.theory.tracing import Trace, blank, trace

if TYPE_CHECKING:
    from erf.uncertainty import Precision

_REMEDY = "use a smaller `size`, fewer `definitions` or a smaller `batch_size`"
_PIXELS_PER_PASS, _PIXELS_PER_GPU_PASS, _LARGEST_BATCH = 2**18, 2**24, 16
"""Pixels and images per batch above which larger batches gain little."""

_TRIED = 4
"""Maximum number of images the self-check tries until one has a finite gradient."""

_PACKAGES = ("erf-toolkit", "torch", "numpy", "h5py", "performer-pytorch", "captum", "timm")


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
    window: bool = True,
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
        window: where the theoretical receptive field is finite, feed the network only the part of the image that
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
        window=window,
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
        sinks: one destination per (layer, unit), in the order of the result; `find_spots` lists them beforehand.
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
    """
    images.check_columns(settings.subset_by if settings else ())
    plan = _Plan(model, images, layers, settings or Settings(), origin or Origin(model=type(model).__name__))
    settings = plan.settings
    with memory_errors(_REMEDY):
        plan.prepare()
        _check_sinks(sinks, len(plan.tapped))
        saved = checkpoint.load() if checkpoint and checkpoint.exists() else None
        choice = plan.choose() if saved is None else plan.chosen_before(saved)
        if choice.warning:
            warn(choice.warning)
        gradients = plan.gradients(choice.way)
        run = Run(
            gradients=gradients,
            taps=plan.taps(sinks, gradients, choice),
            way=choice.way,
            first_batch_size=plan.batch_size(saved),
            settings=settings,
            scratch=scratch,
            images=images,
            checkpoint=checkpoint,
            saved=saved,
            stop=stop,
        )
        _check_scratch(len(run.lanes) * sum(map(len, plan.cells)), run.taps[0].provenance, scratch)
        with closing(run):
            run.begin()
            with choice.way.applied(model, plan.device), deterministic_algorithms(settings.deterministic):
                run.visit(plan.cells, _workers(settings.workers, plan.device), progress)
            return run.finish(progress)


def choose_run_way(model: nn.Module, images: ImageSet, layers: Sequence[str], settings: Settings) -> Choice:
    """Choose the way in which a run would compute, compared with the plain way on the first image."""
    plan = _Plan(model, images, layers, settings, Origin())
    with memory_errors(_REMEDY):
        plan.prepare()
        return plan.choose()


@dataclass
class _Plan:
    """Plan of a run, made before its first image: traces, units, passes and memory."""

    model: nn.Module
    images: ImageSet
    layers: Sequence[str]
    settings: Settings
    origin: Origin

    def __post_init__(self) -> None:
        self.device = pick_device(self.settings.device)
        self.shape = self.images.shape
        self.cells = cells_of(self.images.images, self.settings)
        _check_inputs(self.images, self.settings.arguments)
        _check_until(self.images, self.settings)

    def prepare(self) -> None:
        """Trace the network, resolve units and windows, and raise errors as early as possible."""
        self._check_memory(_sums(self.shape, self.settings) + 3 * _bytes(self.shape, 1))
        self.traces = _traces(self.model.to(self.device), self.layers, self.shape, self.settings)
        self.spots = _spots(self.traces, self.settings)
        self.tapped = _tapped(self.traces, self.spots, self.settings)
        _check_channel(self.traces, self.settings)
        self.is_random = any(traced.random for traced in self.traces.values()) or is_random(self.settings.method)
        if self.is_random and (self.settings.batch_size or 1) > 1:
            raise InputError(
                f"batches of {self.settings.batch_size} for a network or method that draws random numbers; they take "
                "one image at a time"
            )
        self._check_memory(self._needed())
        self.passes = plan_passes(self.model, self.traces, self.spots, self.shape, self.settings)
        self.whole = whole_passes(self.traces, self.spots, self.shape, self.settings)
        self._plan_bands()
        self.draws = Projections(self.model, self.settings.projections, self.settings.seed, self.is_random)
        self._check_memory(self._needed() + (self.settings.batch_size or 1) * self._kept())
        self.precision_error = self._precision_error()

    def _plan_bands(self) -> None:
        """Run the beginning of the network in bands, which are slower, where its maps would fill the memory.

        Without windows, the passes over the whole image are the fast ones.
        """
        settings, largest = self.settings, max(traced.activation_bytes for traced in self.traces.values())
        is_plain = settings.arguments == Arguments() and settings.method == "gradient" and not self.is_random
        if is_plain and settings.precision == "float32" and self.device.type == "cpu" and largest > scarce_memory():
            if self._has_windows:
                self.passes = with_bands(self.model, self.passes, self.shape[0])
            else:
                self.passes = self.whole = with_bands(self.model, self.whole, self.shape[0])

    @property
    def _has_windows(self) -> bool:
        return any(each.window.share(self.shape[1:]) < 1 for each in self.passes)

    def _precision_error(self) -> float:
        """Error of the gradient on noise: sum of absolute differences to full precision, relative to its sum."""
        if self.settings.precision == "float32":
            return 0.0
        each = self.passes[0]
        noise = torch.randn((1, *self.shape), generator=torch.Generator().manual_seed(0)).to(blank(self.model, ()))
        inputs, target = each.window.cut(noise).contiguous(), each.window.targets[:1]
        found: list[Tensor] = []
        with frozen(self.model), float32_convolutions(self.device):
            for precision in PRECISIONS:
                with reduced_precision(precision, self.device):
                    found += unit_gradients(self.model, inputs, target, self.settings.arguments)
        full, half = found
        return float((half - full).abs().sum() / full.abs().sum().clamp(min=1e-30))

    def _needed(self) -> int:
        """Return the bytes that sums, gradients and images need."""
        least, settings = self.settings.batch_size or 1, self.settings
        images = len(self.spots) * settings.projections + 2  # gradients, the batch and the one ahead
        ahead = _workers(settings.workers, self.device) if self.device.type == "cuda" else 0  # copied to the device
        sums = len(self.tapped) * _sums(self.shape, settings)
        return sums + images * _bytes(self.shape, least) + ahead * _bytes(self.shape, 1)

    def _kept(self) -> int:
        """Estimate the bytes autograd keeps per image: at least half of the intermediate maps, at most all."""
        largest = max(each.window.share(self.shape[1:]) for each in self.passes)
        return int(max(traced.activation_bytes for traced in self.traces.values()) // 2 * largest)

    def _check_memory(self, needed: int) -> None:
        available = available_memory(self.device)
        if needed > available:
            raise InsufficientMemoryError(
                f"a run at {self.shape[1]}x{self.shape[2]} needs at least {needed / 1e9:.1f} GB on {self.device.type}, "
                f"{available / 1e9:.1f} GB are free",
                remedy=_REMEDY,
            )

    def batch_size(self, saved: Saved | None = None) -> int:
        """Images per pass before the self-check; a resumed run keeps its batch size unless the settings give one."""
        is_alone = self.is_random or any(traced.reads for traced in self.traces.values())
        if self.settings.batch_size or is_alone:
            return self.settings.batch_size or 1
        if saved:
            return int(saved.identity["batch size"])
        return _batch_size(self.passes[0].window, self.device, self._needed() + self._kept())

    def fastest(self) -> Way:
        """Return the fastest way of computing, used unless the self-check finds it wrong."""
        settings = self.settings
        parameters = self.model.parameters()
        return Way(
            batch_size=min(self.batch_size(), max(len(cell.images) for cells in self.cells for cell in cells)),
            channels_last=memory_layout(self.device) is not None and any(each.ndim == 4 for each in parameters),
            windows=self._has_windows,
            # Other methods register hooks on the original modules, and half precision has its own backward passes.
            own_backward=settings.method == "gradient" and settings.precision == "float32",
            bands=any(each.prefix for each in self.passes),
        )

    def gradients(self, way: Way) -> BatchGradients:
        """Build the computation of batch gradients for a way."""
        return BatchGradients(
            model=self.model,
            draws=self.draws,
            tapped=[self._tapped_unit(layer, unit) for layer, unit in self.tapped],
            passes=in_way(way, self.passes, self.whole),
            settings=self.settings,
            device=self.device,
            seed=self.settings.seed,
            is_random=self.is_random,
            size=self.shape[1:],
            like=blank(self.model, ()),
        )

    def _tapped_unit(self, layer: str, unit: Unit) -> TappedUnit:
        traced = self.traces[layer]
        return TappedUnit(layer, unit, traced.field, traced.feature_shape, traced.layout)

    def choose(self) -> Choice:
        """Choose the way of computing by comparing the fastest with the plain one on the first usable image."""
        fast = self.fastest()
        return self._checked(fast) if self.settings.self_check else unchecked(fast, "not asked for")

    def _checked(self, fast: Way) -> Choice:
        if fast == PLAIN:
            return unchecked(fast, "computed in the plain way")
        # Memory of the plain gradient, of the fast one, and of the whole-image maps that autograd keeps.
        needed = self._needed() + 2 * len(self.spots) * self.settings.projections * _bytes(self.shape, fast.batch_size)
        needed += max(traced.activation_bytes for traced in self.traces.values())
        if needed > (free := available_memory(self.device)):
            words = f"as the whole image takes {needed / 1e9:.1f} GB in the plain way and {free / 1e9:.1f} GB are free"
            return unchecked(fast, words, warns=True)
        gradients = self.gradients(fast)
        try:
            with stage("check"), deterministic_algorithms(self.settings.deterministic):
                choices = (choose_way(fast, gradients, self.whole, item) for item in self._first_images(gradients))
                found = next((choice for choice in choices if choice is not None), None)
        except NoGradientError:
            return unchecked(fast, "no gradient arrives")  # the run reports where it ends
        except (MemoryError, RuntimeError) as error:
            if not is_memory_error(error):
                raise
            return unchecked(fast, "as memory ran out in the plain way", warns=True)
        return found or unchecked(fast, "no image has a finite gradient")

    def _first_images(self, gradients: BatchGradients) -> Iterator[Located]:
        samples = map(self.images.sample, self.images.images)
        located = (gradients.locate(sample) for sample in samples if not isinstance(sample, Failure))
        return islice((item for item in located if not isinstance(item, Failure)), _TRIED)

    def chosen_before(self, saved: Saved) -> Choice:
        """Return the way of computing of the run that is resumed."""
        try:
            return Choice(Way(**saved.identity["way"]), saved.provenance[0].self_check)
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                "the progress is of another version, which does not say how it computed",
                remedy="start again with `overwrite=True`",
            ) from error

    def taps(self, sinks: Sequence[Sink] | None, gradients: BatchGradients, choice: Choice) -> list[Tap]:
        """Build one `Tap`, a measured unit of a layer, for each sink."""
        sinks = [MemorySink() for _ in self.tapped] if sinks is None else sinks
        found = []
        for place, ((layer, unit), sink) in enumerate(zip(self.tapped, sinks, strict=True)):
            part = gradients.part(place)
            provenance = self._provenance(layer, unit, part, choice.of_tap(place))
            found.append(Tap(provenance, sink, part, self._lanes()))
        return found

    def _lanes(self) -> list[Lane]:
        arguments = self.settings.arguments
        pairs = zip(arguments.parts, arguments.channels(self.shape), strict=True)
        return [Lane(name, channels) for name, channels in pairs]

    def _provenance(
        self, layer: str, unit: Unit, window: tuple[int, int, int, int], check: dict[str, str]
    ) -> Provenance:
        traced, settings, framing = self.traces[layer], self.settings, self.images.framing
        is_cuda = self.device.type == "cuda"
        return Provenance(
            **vars(self.origin),
            seed=settings.seed,
            layer=layer,
            unit=unit,
            units="" if settings.unit == CENTER or not isinstance(settings.unit, str) else settings.unit,
            aligned=settings.moves,
            channel=str(settings.channel),
            method=settings.method,
            method_options=dict(settings.method_options or {}),
            layout=traced.layout.words,
            inputs=settings.arguments.names,
            slices=settings.arguments.depth,
            eval_mode=switched_off(self.model),
            random=self.is_random,
            unit_center=_plane(traced.field.center(unit)),
            input_shape=self.shape,
            feature_shape=traced.feature_shape,
            field_size=_plane(traced.field.extent(unit), 1.0),
            field_shift=_plane(traced.field.shift(unit)),
            field_stride=_plane(traced.field.stride, 1.0),
            depth=traced.depth,
            window=window,
            self_check=check,
            field_kind=traced.field.kind,
            definitions=settings.definitions,
            normalisation=framing.normalisation,
            resample=framing.resample,
            mirrored=framing.mirror,
            projections=settings.projections,
            precision=settings.precision,
            precision_error=self.precision_error,
            shard=self.images.part,
            small_block=small_block(framing.size),
            finest_block=1,
            device=torch.cuda.get_device_name(self.device) if is_cuda else self.device.type,
            deterministic=settings.deterministic,
            versions={"python": python_version()} | {name: _version(name) for name in _PACKAGES},
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def find_spots(
    model: nn.Module, input_shape: Sequence[int], layers: Sequence[str], settings: Settings
) -> list[tuple[str, Unit]]:
    """List the (layer, unit) pairs for which `compute_layers` returns one ERF each, in its order.

    Args:
        model: the network.
        input_shape: (C, H, W) of an image.
        layers: paths of one or more layers, each once.
        settings: those of the run.

    Raises:
        LayerError: a layer or unit does not exist, or yields no map.
        InputError: layers are repeated or missing, or the settings do not fit the input.
    """
    traces = _traces(model, layers, input_shape, settings)
    return _tapped(traces, _spots(traces, settings), settings)


def _traces(
    model: nn.Module, layers: Sequence[str], input_shape: Sequence[int], settings: Settings
) -> dict[str, Trace]:
    if not layers or len(set(layers)) < len(layers):
        raise InputError(f"layers: found {', '.join(layers) or 'none'}; expected one or more, each once")
    settings.arguments.check(input_shape)
    return trace(model, layers, input_shape, settings.arguments)


def _spots(traces: Mapping[str, Trace], settings: Settings) -> list[Spot]:
    return [
        (layer, unit)
        for layer, traced in traces.items()
        for unit in resolve_units(settings.unit, layer, traced.feature_shape[1:], traced.field)
    ]


def _tapped(traces: Mapping[str, Trace], spots: Sequence[Spot], settings: Settings) -> list[Spot]:
    """List the (layer, unit) pairs that get an ERF: each unit, or per layer the one on which maps are aligned."""
    if not settings.moves:
        return list(spots)
    if settings.projections > 1 and len(spots) > len(traces):
        raise InputError("an average over units and over draws of projections; expected one of them")
    return [(layer, center_unit(traced.feature_shape[1:])) for layer, traced in traces.items()]


def _check_inputs(images: ImageSet, arguments: Arguments) -> None:
    if images.inputs > 1 and images.inputs != len(arguments.names):
        raise InputError(
            f"{images.inputs} images in each case, {max(1, len(arguments.names))} inputs of the network; expected one "
            "image for each input"
        )


def _check_until(images: ImageSet, settings: Settings) -> None:
    if settings.until and settings.shown_definition == "signed":
        raise InputError("until: definition 'signed' has negative values, which measures cannot weigh; use abs")
    if settings.until and images.part != (1, 1):
        raise InputError("until: a shard cannot tell when all shards are enough; leave one of them out")


def _check_channel(traces: Mapping[str, Trace], settings: Settings) -> None:
    if isinstance(settings.channel, int):
        for layer, traced in traces.items():
            if not 0 <= settings.channel < traced.feature_shape[0]:
                raise LayerError(
                    f"channel {settings.channel} of layer '{layer}', which has {traced.feature_shape[0]}; expected a "
                    "number below that"
                )


def _check_sinks(sinks: Sequence[Sink] | None, units: int) -> None:
    if sinks is not None and len(sinks) != units:
        raise InputError(
            f"{units} units for {len(sinks)} results; choose one, average them with aligned, or use compute_layers"
        )


def _plane(values: tuple[float, ...], of_row: float = 0.0) -> tuple[float, float]:
    """Return the values along (y, x); a signal has one row, whose value is `of_row`."""
    return (values[-2], values[-1]) if len(values) > 1 else (of_row, values[0])


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _sums(shape: Sequence[int], settings: Settings) -> int:
    """Bytes of one unit's sums: per input, two float64 sums per definition, and ring and frame index of each pixel."""
    return (2 * 8 * len(settings.definitions) + 2 * 2) * len(settings.arguments.parts) * shape[1] * shape[2]


def _bytes(shape: Sequence[int], batch_size: int) -> int:
    """Return the bytes of a batch of images (C, H, W), or of their gradients, in float32."""
    return 4 * batch_size * shape[0] * shape[1] * shape[2]


def _batch_size(window: Window, device: torch.device, needed: int) -> int:
    """Number of images that fill a pass or a quarter of the memory; `needed` is the bytes that one image takes."""
    filling = (_PIXELS_PER_PASS if device.type == "cpu" else _PIXELS_PER_GPU_PASS) // (
        window.shape[0] * window.shape[1]
    )
    return max(1, min(filling, _LARGEST_BATCH, available_memory(device) // (4 * needed)))


def _check_scratch(cells: int, provenance: Provenance, folder: Path | None) -> None:
    """Raise `OutputError` if the disk has no room for the image groups: two float64 sums per definition each."""
    place = folder or Path(gettempdir())
    pixels = provenance.input_shape[1] * provenance.input_shape[2]
    needed, free = cells * 2 * 8 * len(provenance.definitions) * pixels, disk_usage(place).free
    if needed > free:
        raise OutputError(
            f"{cells} groups of images set {needed / 1e9:.1f} GB of sums aside, {free / 1e9:.1f} GB are free in "
            f"{place}",
            remedy="use subsets with fewer values, or fewer `definitions`",
        )


def _workers(workers: int | None, device: torch.device) -> int:
    return (1 if device.type == "cpu" else 4) if workers is None else workers
