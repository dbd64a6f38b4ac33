"""Bands: run the local beginning of a network in bands of rows, so that its maps are never in memory as a whole.

The first maps of a network are its largest, and local operators make them: a band of rows depends only on a band of
rows of the image. The chain of modules at the beginning is run band by band: forward without keeping anything, backward
by running each band again and adding its gradient to that of the image. Bands overlap where their receptive fields do.
The sum is the same, with the memory of one band. It takes up to half as long again, because the chain runs twice.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from erf.errors import LayerError
from erf.network.layers import forward_to, split_name
from erf.theory.tracing import Follower, Trace, blank, follow, sourced, watched

WORTHWHILE = 100 * 2**20
"""Bytes of maps that bands must save to be used."""

MOST_ROWS = 1.3
"""Largest total number of rows of all bands, relative to the rows of the image."""


@dataclass(frozen=True)
class Band:
    """Band of rows of the chain's result, half open, and the rows of the image that it is computed from."""

    first: int
    last: int
    top: int
    bottom: int
    skipped: int
    """Number of result rows before `first`, which are discarded."""

    def of(self, inputs: Tensor) -> Tensor:
        """Copy the band's rows from inputs (N, C, H, W), so that the chain may change them in place."""
        return inputs[:, :, self.top : self.bottom].detach().clone()

    def keep(self, result: Tensor) -> Tensor:
        return result[:, :, self.skipped : self.skipped + self.last - self.first]


@dataclass(frozen=True)
class Link:
    """A module of a chain and the trace of its result."""

    path: str
    module: nn.Module
    trace: Trace

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, h, w) of the result."""
        return self.trace.feature_shape

    def bands(self, rows: int, height: int) -> tuple[Band, ...]:
        """Split the result into bands of `rows` rows, for an image of `height` rows."""
        edges = [*range(0, self.shape[1], rows), self.shape[1]]
        return tuple(self._band(first, last, height) for first, last in pairwise(edges))

    def _band(self, first: int, last: int, height: int) -> Band:
        field, alignment = self.trace.field.y, self.trace.alignment[0]
        boxes = [field.box(unit, height) for unit in range(first, last)]
        top = min(start for start, _ in boxes)
        top -= top % alignment
        bottom = height if last == self.shape[1] else max(stop for _, stop in boxes)
        return Band(first, last, top, bottom, first - top // field.shift * len(field.starts))


@dataclass(frozen=True)
class Prefix:
    """Chain of modules at the beginning of a network, each taking the result of the previous one, and its bands."""

    links: tuple[Link, ...]
    bands: tuple[Band, ...]


def find_prefix(
    model: nn.Module,
    layers: Sequence[str],
    input_shape: Sequence[int],
    worthwhile: int = WORTHWHILE,
    most_rows: float = MOST_ROWS,
) -> Prefix | None:
    """Find the beginning of a network, up to some layers, whose bands need the least memory.

    Args:
        model: the network, with one input.
        layers: the layers to measure.
        input_shape: (C, H, W) of one image.
        worthwhile: bytes that bands must save.
        most_rows: largest total number of rows of all bands, relative to the rows of the image.

    Returns:
        The chain and its bands; None where the network does not begin with a chain, or too little would be saved.
    """
    links, total = _chain(model, layers, input_shape)
    best: tuple[float, Prefix] | None = None
    for end in range(1, len(links) + 1):
        last = links[end - 1]
        rows = last.shape[1] // 2
        while rows >= len(last.trace.field.y.starts):
            bands = last.bands(rows, input_shape[1])
            if sum(band.bottom - band.top for band in bands) > most_rows * input_shape[1]:
                break
            needed = _bytes(last, bands, input_shape[1], total)
            if best is None or needed < best[0]:
                best = needed, Prefix(tuple(links[:end]), bands)
            rows //= 2
    return best[1] if best and total - best[0] >= worthwhile else None


def _bytes(last: Link, bands: Sequence[Band], height: int, total: int) -> float:
    """Return the bytes of maps in memory at once: those of the largest band, or those after the chain."""
    share = max(band.bottom - band.top for band in bands) / height
    result = 4 * last.shape[0] * last.shape[1] * last.shape[2]
    return result + max(last.trace.activation_bytes * share + result, total - last.trace.activation_bytes)


def _chain(model: nn.Module, layers: Sequence[str], input_shape: Sequence[int]) -> tuple[list[Link], int]:
    """Find all modules of the chain at the beginning of a network, and the bytes of all the network's maps."""
    (source,) = sourced((blank(model, input_shape),))
    with watched(model, input_shape) as follower:
        finder = _ChainFinder(model, layers, source, follower)
        with finder.hooked(), finder:
            forward_to(model, layers, source, lambda *_: None)
    return finder.links, follower.bytes


class _ChainFinder(TorchDispatchMode):
    """Mode that records the modules called in sequence, each only on the result of the previous one.

    A result that is also used elsewhere, as by a skip connection, ends the chain before it.
    """

    def __init__(self, model: nn.Module, layers: Sequence[str], source: Tensor, follower: Follower) -> None:
        super().__init__()
        self.links: list[Link] = []
        self._paths = {module: path for path, module in model.named_modules() if path}
        self._tapped = [split_name(model, layer)[0] for layer in layers]
        self._tensors = [source]
        """The image, then the result of each link."""
        self._hooked = {module: bool(module._forward_hooks or module._forward_pre_hooks) for module in self._paths}
        self._follower = follower
        self._size = source.shape[2:]
        self._running: nn.Module | None = None
        self._ended = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # as in Follower

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Context manager that records calls of modules."""
        handles = [module.register_forward_pre_hook(self._enter, with_kwargs=True) for module in self._paths]
        handles += [module.register_forward_hook(self._leave) for module in self._paths]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        known = next((place for place, link in enumerate(self.links) if link.module is module), None)
        if known is not None:
            self._cut(known)  # called again
        elif self._running is None and not self._ended and not kwargs and self._continues(module, args):
            self._running = module

    def _continues(self, module: nn.Module, args: Any) -> bool:
        inside = f"{self._paths[module]}."
        return (
            len(args) == 1
            and args[0] is self._tensors[-1]
            and not self._hooked[module]
            and not any(path.startswith(inside) for path in self._tapped)
            and not any(link.path in self._tapped for link in self.links)
        )

    def _leave(self, module: nn.Module, _: Any, output: Any) -> None:
        if module is not self._running:
            return
        link = self._link(module, output)
        self._running = None
        if link is None:
            self._ended = True
        else:
            self.links.append(link)
            self._tensors.append(output)

    def _link(self, module: nn.Module, output: Any) -> Link | None:
        """Return the module as a link if its result is a map with a finite field, otherwise None."""
        if not isinstance(output, Tensor) or output.ndim != len(self._size) + 2:
            return None
        try:
            traced = follow(self._paths[module], output, self._follower, self._size)
        except LayerError:
            return None
        local = traced.field.kind == "finite" and traced.layout.places == tuple(range(2, output.ndim))
        return Link(self._paths[module], module, traced) if local else None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor):
                self._used(leaf)
        return func(*args, **(kwargs or {}))

    def _used(self, tensor: Tensor) -> None:
        """Record that an operator uses a tensor: only the next module may use a result of the chain, the last one."""
        place = max((place for place, known in enumerate(self._tensors) if known is tensor), default=None)
        if place is not None and (place < len(self.links) or self._running is None):
            self._cut(place)

    def _cut(self, length: int) -> None:
        """Truncate the chain to `length` links."""
        del self.links[length:], self._tensors[length + 1 :]
        self._ended = True


@contextmanager
def banded(prefix: Prefix | None) -> Iterator[None]:
    """Context manager under which the first module of the chain runs all of it in bands; the others are identities."""
    modules = [link.module for link in prefix.links] if prefix else []
    before = [(module, module.forward, "forward" in vars(module)) for module in modules]
    forwards = [forward for _, forward, _ in before]

    def run(inputs: Tensor) -> Tensor:
        for forward in forwards:
            inputs = forward(inputs)
        return inputs

    def run_in_bands(inputs: Tensor) -> Tensor:
        assert prefix is not None
        result: Tensor = _Banded.apply(inputs, run, prefix.bands)
        return result

    try:
        for place, module in enumerate(modules):
            module.forward = run_in_bands if place == 0 else _identity
        yield
    finally:
        for module, forward, own in before:
            del module.forward
            if own:
                module.forward = forward


def _identity(inputs: Tensor) -> Tensor:
    return inputs


class _Banded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, run: Callable[[Tensor], Tensor], bands: Sequence[Band]) -> Tensor:
        ctx.save_for_backward(inputs)
        ctx.run, ctx.bands = run, bands
        result: Tensor | None = None
        for band in bands:
            made = run(band.of(inputs))
            if result is None:
                last = made.is_contiguous(memory_format=torch.channels_last)
                result = made.new_empty(
                    (*made.shape[:2], bands[-1].last, made.shape[3]),
                ).contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
            result[:, :, band.first : band.last] = band.keep(made)
        assert result is not None
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (inputs,) = ctx.saved_tensors
        total = torch.zeros_like(inputs)
        for band in ctx.bands:
            source = band.of(inputs).requires_grad_()
            with torch.enable_grad():
                made = band.keep(ctx.run(source.view_as(source)))  # a view, which may be changed in place
            (part,) = torch.autograd.grad(made, source, gradient[:, :, band.first : band.last])
            total[:, :, band.top : band.bottom] += part
        return total, None, None
