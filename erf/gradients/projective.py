"""Projective field of a pixel: the derivative of every unit of a layer with respect to one pixel of one image.

It is a column of the Jacobian of which the receptive field of a unit is a row, so d unit(u) / d pixel(p) is the same
number in both. There are three ways, tried in this order until one agrees with the gradient of a backward pass:

* forward mode carries the derivative along with the values through one forward pass. It is exact and keeps no graph;
* the derivative of the gradient J^T w with respect to w is exact where backward passes are differentiable. It needs no
  forward mode, but the graphs of two passes;
* central differences in double precision need neither, and have an error that two steps of different size bound.

They are compared by one backward pass from all units at once, with random signs s: s · (J v) = (J^T s) · v.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from erf.box import Box
from erf.definitions import DEFAULT_DEFINITION, DEFINITIONS
from erf.errors import ErfError, InputError, LayerError, NoGradientError
from erf.gradients.cancellation import CANCELLED
from erf.gradients.graph import Cancelled, never, stoppable
from erf.gradients.way import PLAIN
from erf.network.devices import float32_convolutions, is_memory_error, memory_layout
from erf.network.inputs import Arrange, alone
from erf.network.layers import Unit, forward_to
from erf.network.modes import frozen
from erf.theory.fields import ReceptiveField
from erf.theory.tracing import Trace

T = TypeVar("T")

FORWARD_MODE, SECOND_BACKWARD, DIFFERENCES = "forward mode", "derivative of the gradient", "finite differences"

_ROUNDING = 64.0
"""Units in the last place, of the derivatives of single channels, that sums over channels may differ by."""

_STEPS = {torch.float64: (1e-3, 1e-4, 1e-5, 1e-6), torch.float32: (0.1, 0.03, 0.01)}
"""Steps of finite differences, relative to the standard deviation of the image."""

_CONVERGED = {torch.float64: 1e-4, torch.float32: 1e-2}
"""Difference between two steps, relative to the derivative, at which finite differences are accepted."""


@dataclass(frozen=True, eq=False, repr=False)
class ProjectiveField:
    """Projective field of a pixel: which units of a layer depend on it, and how strongly."""

    layer: str
    pixel: tuple[int, int]
    """(y, x) in the frame."""
    signed: NDArray[np.float64]
    """(C, h, w): derivative of each unit's sum over channels with respect to the pixel in each channel of the input."""
    field: ReceptiveField
    """Theoretical receptive field of the layer's units, which tells where they lie."""
    way: str
    """How it was computed: 'forward mode', 'derivative of the gradient' or 'finite differences'."""
    difference: float = float("nan")
    """Relative difference from the gradient of a backward pass; NaN if it was not compared."""
    definition: str = DEFAULT_DEFINITION
    """Key of `DEFINITIONS` by which `map` is reduced."""

    @property
    def map(self) -> NDArray[np.float64]:
        """(h, w): the signed derivative, reduced over the channels of the input by the definition."""
        # Of a volume or a signal the map has another number of axes than the two that a definition expects.
        flat = self.signed.reshape(len(self.signed), 1, -1)
        return np.asarray(DEFINITIONS[self.definition](flat)).reshape(self.signed.shape[1:])

    @property
    def offset(self) -> tuple[float, ...]:
        """(y, x) of the centre of unit 0, in pixels."""
        return tuple(axis.center(0) for axis in self.field.axes)

    @property
    def stride(self) -> tuple[float, ...]:
        """(y, x) in pixels from one unit to the next; negative along an axis that runs backwards."""
        return tuple(axis.stride for axis in self.field.axes)

    @property
    def box(self) -> Box[float]:
        """Area in pixels that the map covers: half a stride around the centres of its outer units.

        Pixel (y, x) covers y - 0.5 to y + 0.5, so a map of the size of the frame covers -0.5 to H - 0.5.
        """
        pairs = list(zip(self.field.axes, self.signed.shape[1:], strict=True))[-2:]
        sides = []
        for axis, length in pairs:
            half = abs(axis.stride) / 2
            ends = sorted((axis.center(0), axis.center(length - 1)))
            sides.append((ends[0] - half, ends[1] + half))
        return Box.of_axes(*(sides if len(sides) > 1 else [(-0.5, 0.5), *sides]))

    @property
    def strongest(self) -> Unit:
        """The unit with the largest absolute value of the map."""
        found = np.abs(self.map)
        return tuple(int(index) for index in np.unravel_index(int(found.argmax()), found.shape))

    def __repr__(self) -> str:
        shape, seen = "x".join(map(str, self.signed.shape[1:])), np.count_nonzero(self.signed.any(0))
        return (
            f"ProjectiveField of pixel {','.join(map(str, self.pixel))} in layer {self.layer}: {seen} of {shape} units "
            f"{'sees' if seen == 1 else 'see'} it, by {self.way}"
        )


def project(
    model: nn.Module,
    inputs: Tensor,
    layer: str,
    traced: Trace,
    pixel: tuple[int, int],
    *,
    arrange: Arrange = alone,
    channel: int | None = None,
    channels: Sequence[int] | None = None,
    definition: str = DEFAULT_DEFINITION,
    check: bool = True,
    seed: int = 0,
    is_cancelled: Cancelled = never,
) -> ProjectiveField:
    """Compute the projective field of a pixel of one image.

    Args:
        model: the network, which is frozen meanwhile.
        inputs: (1, C, H, W), preprocessed.
        layer: name of the layer.
        traced: trace of the layer for inputs of this shape.
        pixel: (y, x) in the frame.
        arrange: builds the network's arguments from the inputs.
        channel: a channel of the layer, whose derivative is taken; None for the sum over all.
        channels: channels of the input; None for all. Each takes a forward pass.
        definition: key of `DEFINITIONS` for the map.
        check: compare with the gradient, which takes a backward pass, and try another way if they differ by more than
            rounding. Without it, the first way that runs is taken, for pictures of a network that was checked before.
        seed: seed of random numbers that the network draws.
        is_cancelled: called before each module; once it returns true, the computation stops.

    Returns:
        The field.

    Raises:
        InputError: the pixel lies outside the frame.
        LayerError: the layer is unknown, its channels cancel, or no way agrees with the gradient.
        NoGradientError: no gradient of the layer reaches the input.
        CancelledError: `is_cancelled` returned true.
    """
    _check_pixel(pixel, inputs)
    taken = tuple(range(inputs.shape[1]) if channels is None else channels)
    layout = memory_layout(inputs.device)
    with frozen(model, layout), float32_convolutions(inputs.device), stoppable(model, is_cancelled):
        column = _Column(model, inputs, layer, traced, pixel, arrange, channel, taken, seed)
        found, difference = _first_agreeing(column, check)
    signed = found.sums.double().cpu().numpy()
    return ProjectiveField(layer, pixel, signed, traced.field, found.way, difference, definition)


@dataclass(frozen=True, eq=False)
class _Found:
    """Derivatives by one way."""

    way: str
    sums: Tensor
    """(C, *axes): sums over channels of the layer."""
    sizes: Tensor
    """(C, *axes): sums of absolute values, to which rounding is relative."""

    @classmethod
    def of(cls, way: str, tangents: Sequence[tuple[Tensor, Tensor]]) -> "_Found":
        sums, sizes = zip(*tangents, strict=True)
        return cls(way, torch.stack(sums), torch.stack(sizes))

    @property
    def floor(self) -> float:
        """Norm of the rounding errors of the sums."""
        return _ROUNDING * torch.finfo(self.sums.dtype).eps * _norm(self.sizes)


class _UnusableError(RuntimeError):
    """A way whose result cannot be used."""


@dataclass(frozen=True, eq=False)
class _Column:
    """The column of the Jacobian that belongs to a pixel, with the ways to compute it."""

    model: nn.Module
    inputs: Tensor
    layer: str
    traced: Trace
    pixel: tuple[int, int]
    arrange: Arrange
    channel: int | None
    channels: tuple[int, ...]
    seed: int

    def forward_mode(self) -> _Found:
        """One forward pass for each channel of the input, with the derivative carried along."""
        return _Found.of(FORWARD_MODE, [self._tangent(channel) for channel in self.channels])

    def _tangent(self, channel: int) -> tuple[Tensor, Tensor]:
        def take(maps: Tensor) -> tuple[Tensor, Tensor]:
            tangent = forward_ad.unpack_dual(maps).tangent
            if tangent is None:
                raise _UnusableError("no derivative arrives")
            return _summed(tangent)

        with warnings.catch_warnings(), torch.no_grad(), _differentiable_kernels(), forward_ad.dual_level():
            warnings.filterwarnings("ignore", ".*torch.jit.script", FutureWarning)  # PyTorch's own use of it
            return self._run(forward_ad.make_dual(self.inputs.clone(), self._delta(channel)), take)

    def second_backward(self) -> _Found:
        """The derivative of J^T w with respect to w, which has the shape of the layer's map."""
        with torch.enable_grad(), _differentiable_kernels():
            weights: list[Tensor] = []

            def take(maps: Tensor) -> Tensor:
                self._check_gradient(maps)  # the product below has one in any case, by the weights
                weights.append(torch.zeros_like(maps, requires_grad=True))
                return (maps * weights[0]).sum()

            gradient = self._at_pixel(take, create_graph=True)
            tangents = []
            for index, value in enumerate(gradient):
                last = index == len(gradient) - 1
                if not value.requires_grad:
                    raise _UnusableError("the gradient is not differentiable")
                (tangent,) = torch.autograd.grad(value, weights, retain_graph=not last, materialize_grads=True)
                tangents.append(_summed(tangent))
        return _Found.of(SECOND_BACKWARD, tangents)

    def differences(self) -> _Found:
        """Central differences of a copy of the network in double precision, or in its own if it has no other."""
        try:
            twin = deepcopy(self.model).double()
            return _Column(twin, self.inputs.double(), *self._rest)._converged()
        except ErfError:
            raise
        except _FAILURES as error:
            if is_memory_error(error) or isinstance(error, _UnusableError):
                raise
            return self._converged()

    @property
    def _rest(self) -> tuple[Any, ...]:
        return self.layer, self.traced, self.pixel, self.arrange, self.channel, self.channels, self.seed

    def _converged(self) -> _Found:
        """Differences with the first step that agrees with the one before."""
        kind = torch.float64 if self.inputs.dtype == torch.float64 else torch.float32
        scale = float(self.inputs.double().std(correction=0)) or 1.0
        tries = (self._difference(step * scale) for step in _STEPS[kind])
        for one, other in pairwise(tries):
            if _norm(one.sums - other.sums) <= _CONVERGED[kind] * _norm(other.sums) + other.floor:
                return other
        raise _UnusableError("they depend on the step")

    @torch.no_grad()
    def _difference(self, step: float) -> _Found:
        tangents = []
        for channel in self.channels:
            ahead, behind = (
                self._run(self.inputs + sign * step * self._delta(channel), torch.clone) for sign in (1, -1)
            )
            tangents.append(_summed((ahead - behind) / (2 * step)))
        return _Found.of(DIFFERENCES, tangents)

    def gradient(self, signs: Tensor) -> Tensor:
        """The gradient (C,), at the pixel, of the sum of all units, each with a sign (*axes)."""

        def take(maps: Tensor) -> Tensor:
            self._check_gradient(maps)
            return (maps.sum(1)[0] * signs).sum()

        with torch.enable_grad():
            return self._at_pixel(take)

    def _check_gradient(self, maps: Tensor) -> None:
        if not maps.requires_grad:
            raise NoGradientError(
                f"layer '{self.layer}' passes no gradient to the input; expected a differentiable path "
                "(look for detach(), no_grad or rounding on the way)",
                self.layer,
            )

    def _at_pixel(self, take: Callable[[Tensor], Tensor], create_graph: bool = False) -> Tensor:
        source = self.inputs.detach().requires_grad_()
        total = self._run(source.clone(), take)
        (gradient,) = torch.autograd.grad(total, source, create_graph=create_graph, materialize_grads=True)
        return gradient[0, list(self.channels), *self.pixel]

    def _delta(self, channel: int) -> Tensor:
        delta = torch.zeros_like(self.inputs)
        delta[0, channel, *self.pixel] = 1
        return delta

    def _run(self, inputs: Tensor, take: Callable[[Tensor], T]) -> T:
        """Run the network up to the layer and return the result of `take` for the chosen channels of its map."""

        def look(_: str, output: Tensor) -> T:
            maps = self.traced.layout.as_map(output)
            return take(maps if self.channel is None else maps[:, [self.channel]])

        devices = [inputs.device] if inputs.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.seed)
            return forward_to(self.model, [self.layer], self.arrange(inputs), look)[self.layer]


_FAILURES = (RuntimeError, TypeError, ValueError, AssertionError, IndexError, AttributeError, KeyError)
"""Errors of operators that have no derivative of the kind that is asked for."""


def _first_agreeing(column: _Column, check: bool) -> tuple[_Found, float]:
    """Return the result of the first way that agrees with the gradient, and the difference."""
    reasons = []
    for name, compute in (
        (FORWARD_MODE, column.forward_mode),
        (SECOND_BACKWARD, column.second_backward),
        (DIFFERENCES, column.differences),
    ):
        try:
            found = compute()
            _check_result(found, column.layer)
            if not check:
                return found, float("nan")
            difference = _compare(column, found)
        except ErfError:
            raise
        except _FAILURES as error:
            if is_memory_error(error):
                raise
            reasons.append(f"{name}: {_line(error)}")
            continue
        if difference <= _tolerance(found):
            return found, difference
        reasons.append(f"{name}: differs from the gradient by {difference:.1e}")
    raise LayerError(f"layer '{column.layer}' has no derivative that could be confirmed ({'; '.join(reasons)})")


def _check_result(found: _Found, layer: str) -> None:
    if not found.sums.isfinite().all():
        raise _UnusableError("NaN or infinite")
    if _norm(found.sizes) > 0 and _norm(found.sums) <= found.floor and found.way != DIFFERENCES:
        raise LayerError(f"layer '{layer}': {CANCELLED}", remedy="choose a `channel`, or another layer")


def _tolerance(found: _Found) -> float:
    """Return the difference that rounding explains: it grows through a deep network by some orders of magnitude."""
    exact = 3 * float(torch.finfo(found.sums.dtype).eps) ** 0.5
    size = _norm(found.sums)
    return max(exact, 1e-3 if found.way == DIFFERENCES else 0.0) + (found.floor / size if size else 0.0)


def _compare(column: _Column, found: _Found) -> float:
    """Return the difference from the gradient, relative to the derivatives."""
    difference = _difference_from_gradient(column, found)
    if difference <= _tolerance(found):
        return difference
    # A gradient can be wrong by the strides that a transposition leaves; the plain way of a run is not.
    with PLAIN.applied(column.model, column.inputs.device):
        return _difference_from_gradient(column, found)


def _difference_from_gradient(column: _Column, found: _Found) -> float:
    generator = torch.Generator().manual_seed(0)
    signs = (torch.randint(0, 2, found.sums.shape[1:], generator=generator) * 2 - 1).to(found.sums)
    try:
        expected = column.gradient(signs.to(column.inputs)).to(found.sums)
    except ErfError:
        raise
    except RuntimeError as error:
        if is_memory_error(error):
            raise
        return _difference_without_gradient(column, found)
    sums = (found.sums * signs).flatten(1).sum(1)
    return _relative(_norm(sums - expected), max(_norm(found.sums), _norm(expected)))


def _difference_without_gradient(column: _Column, found: _Found) -> float:
    """Return the difference from finite differences, where a tensor was changed in place, or has no backward pass."""
    other = found if found.way == DIFFERENCES else column.differences()
    return _relative(_norm(found.sums - other.sums.to(found.sums)), max(_norm(found.sums), _norm(other.sums)))


def _relative(error: float, scale: float) -> float:
    return error / scale if scale else 0.0


def _summed(tangent: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sums over channels of (1, C, *axes), of values and of absolute values."""
    return tangent[0].sum(0), tangent[0].abs().sum(0)


def _norm(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float64 if values.device.type != "mps" else None))


def _line(error: Exception) -> str:
    """Return the first sentence of an error."""
    lines = str(error).strip().splitlines()
    return lines[0].split(". ")[0][:160] if lines else type(error).__name__


@contextmanager
def _differentiable_kernels() -> Iterator[None]:
    """Context manager that replaces fused attention, which has neither forward mode nor a second derivative."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _check_pixel(pixel: tuple[int, int], inputs: Tensor) -> None:
    height, width = inputs.shape[-2:]
    if len(pixel) != 2 or not (0 <= pixel[0] < height and 0 <= pixel[1] < width):
        raise InputError(
            f"pixel {','.join(map(str, pixel))} lies outside the frame of {height}x{width} pixels; expected y below "
            f"{height} and x below {width}"
        )
