"""Plan of a run, made before its first image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from erf.engine.batches import BatchGradients
from erf.engine.description import RunDescription
from erf.engine.groups import Rounds, group_images
from erf.engine.memory import MemoryEstimate, activation_bytes
from erf.engine.passes import Pass, PassPlan
from erf.engine.seeds import Seeds
from erf.engine.settings import PRECISIONS, Settings
from erf.engine.units import MeasuredUnit, measured_units, trace_layers
from erf.errors import InputError
from erf.gradients.autograd import unit_gradients
from erf.gradients.diagnosis import switched_off
from erf.gradients.methods import is_random as is_random_method
from erf.gradients.units import MaskChoice
from erf.gradients.way import Way
from erf.images import ImageSet
from erf.network.devices import float32_convolutions, memory_layout, pick_device, scarce_memory
from erf.network.inputs import Arguments
from erf.network.modes import frozen, reduced_precision
from erf.network.projections import Projections
from erf.results import Origin
from erf.theory.tracing import Trace, blank


@dataclass(frozen=True)
class Plan:
    """Everything that is fixed before the first image of a run."""

    model: nn.Module
    images: ImageSet
    settings: Settings
    device: torch.device
    rounds: Rounds
    """Image groups in the order in which they are processed."""
    units: tuple[MeasuredUnit, ...]
    passes: PassPlan
    draws: Projections
    seeds: Seeds
    memory: MemoryEstimate
    description: RunDescription
    batch_size: int
    """Images per pass before the self-check."""
    batch_size_is_given: bool
    """Whether the batch size follows from settings and network, rather than from the memory that is free."""
    like: Tensor = field(repr=False)
    """A tensor with the dtype and device of the model's parameters."""

    def gradients(self, way: Way) -> BatchGradients:
        """Build the computation of batch gradients for a way."""
        return BatchGradients(
            model=self.model,
            draws=self.draws,
            units=self.units,
            passes=self.passes.in_way(way),
            settings=self.settings,
            device=self.device,
            seeds=self.seeds,
            size=self.images.shape[1:],
            like=self.like,
        )

    def fastest(self) -> Way:
        """Return the fastest way of computing, used unless the self-check finds it wrong."""
        settings = self.settings
        is_planar = any(each.ndim == 4 for each in self.model.parameters())
        return Way(
            batch_size=min(self.batch_size, max(len(group.images) for groups in self.rounds for group in groups)),
            channels_last=memory_layout(self.device) is not None and is_planar,
            crops=self.passes.has_crops,
            # Other methods register hooks on the original modules, and half precision has its own backward passes.
            own_backward=settings.method == "gradient" and settings.precision == "float32",
            bands=self.passes.has_bands,
        )

    def check_memory(self, way: Way) -> None:
        """Raise `InsufficientMemoryError` if the run does not fit into memory in a way of computing.

        A batch size that the settings do not give is reduced where memory runs out.
        """
        batch = min(self.settings.batch_size or 1, way.batch_size)
        self.memory.check(self.memory.total(self.passes.in_way(way), self.units, batch))


def plan_run(model: nn.Module, images: ImageSet, layers: Sequence[str], settings: Settings, origin: Origin) -> Plan:
    """Trace the network, resolve units and crops, and raise errors as early as possible.

    Args:
        model: the network, which is moved to the device of the settings.
        images: the images of the run.
        layers: paths of one or more layers, each once.
        settings: settings of the run.
        origin: facts for the record.

    Raises:
        ErfError: the errors of `compute_layers` that can be found before the first image.
    """
    device = pick_device(settings.device)
    rounds = group_images(images.images, settings)
    _check_inputs(images, settings.arguments)
    _check_until(images, settings)
    memory = MemoryEstimate(images.shape, settings, device)
    memory.check(memory.images(3))  # the batch, the one ahead, and the image being traced
    traces = trace_layers(model.to(device), layers, images.shape, settings)
    units = measured_units(traces, settings)
    is_random = any(traced.random for traced in traces.values()) or is_random_method(settings.method)
    _check_batch_size(settings, is_random)
    passes = _plan_passes(model, units, memory, is_random)
    draws = Projections(model, settings.projections, settings.seed, is_random)
    memory.check(memory.total(passes.fast, units, settings.batch_size or 1))
    given = _given_batch_size(settings, traces, is_random)
    error = _precision_error(model, passes.fast[0], memory)
    return Plan(
        model=model,
        images=images,
        settings=settings,
        device=device,
        rounds=rounds,
        units=units,
        passes=passes,
        draws=draws,
        seeds=Seeds(settings.seed, is_random, device),
        memory=memory,
        description=RunDescription(
            origin, images, settings, device, switched_off(model), is_random, _parameters(model), error
        ),
        batch_size=given or memory.batch_size(passes.fast, units),
        batch_size_is_given=given is not None,
        like=blank(model, ()),
    )


def _parameters(model: nn.Module) -> int:
    return sum(each.numel() for each in model.parameters())


def _plan_passes(model: nn.Module, units: Sequence[MeasuredUnit], memory: MemoryEstimate, is_random: bool) -> PassPlan:
    """Plan the passes; those whose maps would fill the memory begin in bands, which are slower."""
    settings = memory.settings
    passes = PassPlan.of(model, units, memory.shape, settings)
    is_plain = settings.arguments == Arguments() and settings.method == "gradient" and not is_random
    if is_plain and settings.precision == "float32" and memory.device.type == "cpu":
        return passes.with_bands(model, memory.shape[0]) if activation_bytes(units) > scarce_memory() else passes
    return passes


def _given_batch_size(settings: Settings, traces: Mapping[str, Trace], is_random: bool) -> int | None:
    """Return the batch size that settings or the network demand; None where any will do."""
    if MaskChoice.parse(settings.unit):
        return 1  # images have different numbers of units
    is_alone = is_random or any(traced.reads for traced in traces.values())
    return settings.batch_size or (1 if is_alone else None)


def _precision_error(model: nn.Module, first: Pass, memory: MemoryEstimate) -> float:
    """Return the error of the gradient on noise: sum of absolute differences to full precision, relative to its sum."""
    settings, device = memory.settings, memory.device
    if settings.precision == "float32":
        return 0.0
    noise = torch.randn((1, *memory.shape), generator=torch.Generator().manual_seed(0)).to(blank(model, ()))
    inputs, target = first.crop.cut(noise).contiguous(), first.crop.targets[:1]
    gradients: list[Tensor] = []
    with frozen(model), float32_convolutions(device):
        for precision in PRECISIONS:
            with reduced_precision(precision, device):
                gradients += unit_gradients(model, inputs, target, settings.arguments)
    full, half = gradients
    return float((half - full).abs().sum() / full.abs().sum().clamp(min=1e-30))


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


def _check_batch_size(settings: Settings, is_random: bool) -> None:
    if is_random and (settings.batch_size or 1) > 1:
        raise InputError(
            f"batches of {settings.batch_size} for a network or method that draws random numbers; they take one image "
            "at a time"
        )
