"""Diagnosis of gradients: where they vanish, and whether they match finite differences of the forward pass."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from erf.gradients.autograd import Target, in_place_errors, unit_gradients
from erf.network.inputs import Arrange, alone
from erf.network.layers import forward_to, outputs

_OFF = ("Dropout", "DropPath", "StochasticDepth", "DropBlock")
_STEP = 1e-4
"""Step of a finite difference in double precision, relative to the input's standard deviation."""


@dataclass
class _Visit:
    """A tensor returned by a module."""

    path: str
    kind: str
    tensor: Tensor
    takes_gradient: bool
    """Whether one of the module's arguments carries a gradient to the input."""


def gradient_end(model: nn.Module, inputs: Tensor, target: Target, arrange: Arrange = alone) -> str:
    """Describe where the gradient of a unit becomes zero, NaN or is cut on its way to the input.

    Args:
        model: the network, used as it is; call this within `frozen`.
        inputs: (N, C, H, W).
        target: the unit.
        arrange: builds the network's arguments from the inputs.

    Returns:
        One phrase; '' if the gradient reaches the input.
    """
    visits, total = _visits(model, inputs, target, arrange)
    if not total.requires_grad:
        return _cut(visits)
    alive: _Visit | None = None
    for visit, gradient in _backwards(visits, total):
        if not torch.isfinite(gradient).all():
            return f"it is NaN or infinite {_between(visit, alive)}"
        if not gradient.any():
            return f"it is zero {_between(visit, alive)}{_dead(alive)}"
        alive = visit
    (last,) = unit_gradients(model, inputs, [target], arrange)
    if torch.isfinite(last).all() and last.any():
        return ""
    what = "zero" if torch.isfinite(last).all() else "NaN or infinite"
    return f"it is {what}" + (f" before '{alive.path}' ({alive.kind}){_dead(alive)}" if alive else "")


def _cut(visits: Sequence[_Visit]) -> str:
    for visit in visits:
        if visit.takes_gradient and not visit.tensor.requires_grad:
            return (
                f"'{visit.path}' ({visit.kind}) returns a tensor that is cut from its input (detach, no_grad, rounding "
                "or an index)"
            )
        if not visit.takes_gradient and not visit.tensor.requires_grad:
            return f"what '{visit.path}' ({visit.kind}) is given is cut from the input (detach, no_grad, NumPy)"
    return "it is cut behind the last module (detach, no_grad, rounding or an index)"


def _backwards(visits: Sequence[_Visit], total: Tensor) -> Iterator[tuple[_Visit, Tensor]]:
    """Yield the modules between the unit and the input, backwards, each with the gradient of its output."""
    kept = [visit for visit in visits if visit.tensor.requires_grad]
    with in_place_errors():
        gradients = torch.autograd.grad(total, [visit.tensor for visit in kept], allow_unused=True) if kept else ()
    for visit, gradient in zip(reversed(kept), reversed(gradients), strict=True):
        if gradient is not None:
            yield visit, gradient


def _between(dead: _Visit, alive: _Visit | None) -> str:
    behind = f" and was not at that of '{alive.path}' ({alive.kind})" if alive else ""
    return f"at the output of '{dead.path}' ({dead.kind}){behind}"


def _dead(alive: _Visit | None) -> str:
    """Describe a dead ReLU: outputs that are all zero pass no gradient; otherwise ''."""
    if alive is None or alive.tensor.any():
        return ""
    return "; its output is zero everywhere, as that of a dead ReLU"


def _visits(model: nn.Module, inputs: Tensor, target: Target, arrange: Arrange) -> tuple[list[_Visit], Tensor]:
    """Return the outputs of all leaf modules, in order of their calls, and the unit's value."""
    visits: list[_Visit] = []

    def note(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(module: nn.Module, args: Any, output: Any) -> None:
            takes = any(tensor.requires_grad for tensor in outputs(args).values())
            visits.extend(
                _Visit(path, type(module).__name__, tensor, takes)
                for tensor in outputs(output).values()
                if tensor.is_floating_point()
            )

        return look

    leaves = [(path, module) for path, module in model.named_modules() if path and not any(module.children())]
    handles = [module.register_forward_hook(note(path)) for path, module in leaves]
    try:
        with torch.enable_grad():
            source = inputs.detach().requires_grad_()
            found = forward_to(
                model, [target.layer], arrange(source.clone()), lambda _, output: target.totals(output).sum()
            )
    finally:
        for handle in handles:
            handle.remove()
    return visits, found[target.layer]


@dataclass(frozen=True)
class Agreement:
    """Finite differences of a unit's value, and the values that its gradient predicts."""

    measured: tuple[float, ...]
    expected: tuple[float, ...]

    @property
    def error(self) -> float:
        """Largest deviation, as a share of the largest value."""
        scale = max((abs(value) for value in (*self.measured, *self.expected)), default=0.0)
        deviations = (abs(one - two) for one, two in zip(self.measured, self.expected, strict=True))
        return max(deviations, default=0.0) / scale if scale else 0.0


def directions_agree(
    model: nn.Module, inputs: Tensor, target: Target, arrange: Arrange = alone, count: int = 6, seed: int = 0
) -> Agreement:
    """Compare the gradient with finite differences along random directions of the whole input.

    Detects a backward pass that does not match the forward pass. Use inputs and model in double precision.

    Args:
        model: the network, used as it is.
        inputs: (N, C, H, W).
        target: the unit.
        arrange: builds the network's arguments from the inputs.
        count: number of directions.
        seed: seed of the directions.
    """
    generator = torch.Generator().manual_seed(seed)
    moves = [torch.randn(inputs.shape, generator=generator).to(inputs) for _ in range(count)]
    return _compare(model, inputs, target, arrange, [move / move.norm() for move in moves])


def pixels_agree(
    model: nn.Module, inputs: Tensor, target: Target, arrange: Arrange = alone, count: int = 24, seed: int = 0
) -> Agreement:
    """Compare the gradient with finite differences at single pixels, which need no backward pass.

    Half of the pixels are drawn in proportion to the gradient, half uniformly. `count` is the number of pixels; the
    other arguments are those of `directions_agree`.
    """
    (gradient,) = unit_gradients(model, inputs, [target], arrange)
    weights = gradient.abs().flatten().double().cpu()
    generator = torch.Generator().manual_seed(seed)
    even = torch.randint(weights.numel(), (count // 2,), generator=generator)
    total = weights.sum()
    if total > 0:
        edges = (weights / total).cumsum(0)
        drawn = torch.searchsorted(edges, torch.rand(count - count // 2, generator=generator, dtype=torch.float64))
        even = torch.cat([drawn.clamp(max=weights.numel() - 1), even])
    moves = []
    for place in even.tolist():
        move = torch.zeros_like(inputs)
        move.view(-1)[place] = 1
        moves.append(move)
    return _compare(model, inputs, target, arrange, moves)


def _compare(model: nn.Module, inputs: Tensor, target: Target, arrange: Arrange, moves: Sequence[Tensor]) -> Agreement:
    (gradient,) = unit_gradients(model, inputs, [target], arrange)

    def value(at: Tensor) -> float:
        with torch.no_grad():
            found = forward_to(
                model, [target.layer], arrange(at.clone()), lambda _, output: target.totals(output).sum()
            )
        return float(found[target.layer])

    step = _STEP * float(inputs.std()) * (1 if inputs.dtype == torch.float64 else 100)
    measured = tuple((value(inputs + step * move) - value(inputs - step * move)) / (2 * step) for move in moves)
    expected = tuple(float((gradient * move).sum()) for move in moves)
    return Agreement(measured, expected)


def is_repeatable(model: nn.Module, inputs: Tensor, target: Target, arrange: Arrange = alone) -> bool:
    """Whether the unit has the same value, bit by bit, in two forward passes."""
    values = []
    for _ in range(2):
        with torch.no_grad():
            found = forward_to(
                model, [target.layer], arrange(inputs.clone()), lambda _, output: target.values(output).clone()
            )
        values.append(found[target.layer])
    return torch.equal(*values)


def switched_off(model: nn.Module) -> str:
    """Describe the modules that behave differently in eval mode than in training, with counts."""
    kinds = Counter(type(module).__name__ for module in model.modules())
    off = [f"{count} {kind}" for kind, count in kinds.items() if kind.startswith(_OFF)]
    fixed = [f"{count} {kind}" for kind, count in kinds.items() if "BatchNorm" in kind]
    words = [f"off: {', '.join(off)}"] * bool(off) + [f"running statistics: {', '.join(fixed)}"] * bool(fixed)
    return "; ".join(words)
