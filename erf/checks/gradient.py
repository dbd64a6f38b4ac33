"""Checks of a unit's gradient on noise: where it ends, whether it is repeatable, and whether others agree with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from erf.building import Model, Network, build_network
from erf.building.network import SMALLER, Warn, warn_of_assumption
from erf.engine import choose_run_way
from erf.engine.settings import Settings
from erf.errors import NoGradientError
from erf.gradients.autograd import Target
from erf.gradients.cancellation import CANCELLED, channels_cancel
from erf.gradients.diagnosis import directions_agree, gradient_end, is_repeatable, pixels_agree, switched_off
from erf.gradients.probe import probe, theoretical_box
from erf.gradients.units import UnitChoice
from erf.images import from_arrays
from erf.images.size import Size
from erf.network.devices import memory_errors
from erf.network.inputs import Arguments
from erf.network.layers import Unit
from erf.network.modes import frozen
from erf.text import html_table, text_table
from erf.theory.tracing import Trace, blank

_TOLERANCE = {"float64": 1e-4, "float32": 3e-2}
"""Allowed error of finite differences relative to the largest: ReLU and maximum kinks within the step, and rounding."""

_IMAGES = 16
"""Number of images of the trial run that chooses the way of computing: as many as fit in one batch."""


@dataclass(frozen=True)
class Check:
    """One check: its name, what was found, and whether it passed."""

    name: str
    found: str
    passed: bool = True


COLUMNS = ("check", "found", "")


@dataclass(frozen=True, repr=False)
class GradientReport:
    """Checks of the gradient of one unit of a layer; shows itself as a table."""

    network: str
    """Name of the network."""
    layer: str
    unit: Unit
    input_shape: tuple[int, int, int]
    """Shape (C, H, W) of the input."""
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether all checks passed."""
        return all(check.passed for check in self.checks)

    @property
    def title(self) -> str:
        """Network, layer, unit and input."""
        shape = "x".join(map(str, self.input_shape))
        return f"{self.network}, layer {self.layer}, unit {','.join(map(str, self.unit))}, input {shape}"

    @property
    def rows(self) -> list[list[str]]:
        """Cells under `COLUMNS`."""
        return [[one.name, one.found, "ok" if one.passed else "WRONG"] for one in self.checks]

    def __str__(self) -> str:
        return f"{self.title}\n\n{text_table(COLUMNS, self.rows, left=3)}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(COLUMNS, self.rows, left=3)


def check(
    model: Model,
    layer: str = "",
    unit: UnitChoice = "center",
    *,
    size: Size | None = None,
    weights: str | Path | None = None,
    seed: int | None = None,
    image_seed: int = 0,
    model_args: Mapping[str, Any] | None = None,
    depth: int = 0,
    trust: bool = False,
    warn: Warn = warn_of_assumption,
) -> GradientReport:
    """Check a unit's gradient on noise: where it ends, and whether finite differences and theory agree with it.

    Finite differences need no backward pass: random pixels are changed one by one.

    Args:
        model: name, module, function that returns a module, or network, as for `erf.compute`.
        layer: name of the layer; '' for the default layer.
        unit: choice of one unit.
        size: (height, width) of the input in pixels, or the side of a square; None for the network's own.
        weights: as for `erf.build_network`.
        seed: seed of untrained weights; None for 0, or that of a network of `build_network`.
        image_seed: seed of the noise.
        model_args: options of the network.
        depth: slices of a volume, for networks with 3-D convolutions.
        trust: whether an archive `file.pt2`, which is code, may be opened.
        warn: called with one line where a value is assumed.

    Returns:
        The checks in their order; those after a failure that leaves them without meaning are not made.

    Raises:
        ModelError: the network cannot be built.
        LayerError: the network has no such layer or unit.
        InsufficientMemoryError: a pass does not fit into memory.

    Example:
        >>> import torch, erf
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.MaxPool2d(2))
        >>> erf.check(model, "1", size=(64, 48)).passed
        True
    """
    network = build_network(model, weights, seed=seed, size=size, model_args=model_args, depth=depth, trust=trust)
    with memory_errors(SMALLER):
        name, traced, place = network.locate(layer, unit, warn=warn)
        target = Target(name, (place,), traced.layout)
        generator = torch.Generator().manual_seed(image_seed)
        noise = torch.randn((1, *network.input_shape), generator=generator).to(blank(network.model, ()))
        checks = [
            Check("random numbers in eval mode", "drawn: the run seeds them" if traced.random else "none"),
            Check("modules that differ in training", switched_off(network.model) or "none"),
        ]
        with frozen(network.model):
            checks += _gradient_checks(network.model, noise, target, network.arguments, traced)
        if all(check.passed for check in checks):
            checks += [_check_support(network, name, place, traced), _check_way(network, noise, target)]
    return GradientReport(network.name, name, place, network.input_shape, tuple(checks))


def _gradient_checks(
    model: nn.Module, noise: Tensor, target: Target, arguments: Arguments, traced: Trace
) -> list[Check]:
    if _cancels(model, noise, target, arguments):
        return [Check("sum over channels", CANCELLED, passed=False)]
    end = gradient_end(model, noise, target, arguments)
    checks = [Check("gradient", end or "arrives at the input", not end)]
    if end or traced.random:
        return checks
    same = is_repeatable(model, noise, target, arguments)
    checks.append(Check("the same value twice", "bit by bit" if same else "no", same))
    double = _in_double(model, noise, arguments)
    try:
        for what, agree in (("random directions", directions_agree), ("random pixels", pixels_agree)):
            error = agree(model, double, target, arguments).error
            precision = str(double.dtype).removeprefix("torch.")
            found = f"differ by {error:.1e} of the largest ({precision})"
            checks.append(Check(f"finite differences, {what}", found, error <= _TOLERANCE[precision]))
    finally:
        model.to(noise.dtype)
    return checks


def _cancels(model: nn.Module, noise: Tensor, target: Target, arguments: Arguments) -> bool:
    try:
        return channels_cancel(model, noise, [target], arguments) == [True]
    except NoGradientError:
        return False


def _in_double(model: nn.Module, noise: Tensor, arguments: Arguments) -> Tensor:
    """Convert model and noise to double precision, unless the model cannot run in it; return the noise."""
    try:
        with torch.no_grad():
            model.double()(*arguments(noise.double()))
    except (RuntimeError, TypeError, ValueError):
        model.to(noise.dtype)
        return noise
    return noise.double()


def _check_support(network: Network, layer: str, unit: Unit, traced: Trace) -> Check:
    """Check that the gradient lies inside the theoretical receptive field."""
    found = probe(network.model, layer, unit, traced, network.input_shape, network.arguments)
    kept = found.lies_in(theoretical_box(traced, unit, network.size))
    name = f"gradient inside the theoretical field ({traced.field.kind})"
    return Check(name, "yes" if kept else "no: the gradient contradicts the theoretical field", kept)


def _check_way(network: Network, noise: Tensor, target: Target) -> Check:
    """Describe the way in which a run would compute: the fast way only if its gradient equals that of the plain way."""
    settings = Settings(unit=target.units[0], arguments=network.arguments, device=noise.device.type)
    images = from_arrays([noise[0].cpu().numpy()] * _IMAGES)
    choice = choose_run_way(network.model, images, [target.layer], settings)
    if choice.warning:
        return Check("fast way of computing", choice.warning.removeprefix("self-check: "))
    if not choice.differences:
        return Check("fast way of computing", choice.record["result"])
    (difference,) = choice.differences.values()
    return Check("fast way of computing", f"{choice.way.description}; differs by {difference.largest_text}")
