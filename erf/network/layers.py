"""Layers: modules of the network, named by their path, whose output is a map.

`output` is the network's own output. Where a module returns several tensors, keys select one of them, each after a
colon: `output:aux`, `encoder:0`.
"""

import difflib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any, TypeVar

from torch import Tensor, nn

from erf.errors import LayerError

T = TypeVar("T")

OUTPUT = "output"
"""Name of the network's own output, unless a module has that name."""

Unit = tuple[int, ...]
"""Indices along the axes of a layer's map; (y, x) for images."""


@dataclass(frozen=True)
class Layout:
    """Layout: the rule by which the output (N, …) of a layer is read as a map."""

    places: tuple[int, ...]
    """Dimensions of the axes; a single one where the map is flattened to tokens, none for a vector."""
    grid: tuple[int, ...]
    """Size of the map."""
    before: int = 0
    """Number of tokens before those of the map, such as a class token."""
    is_assumed: bool = False
    """Whether units are only assumed to lie evenly over the image, because global operators made all of them."""

    @property
    def is_tokens(self) -> bool:
        return self.places != () and (len(self.places) < len(self.grid) or self.before > 0)

    def as_map(self, output: Tensor) -> Tensor:
        """A view (N, C, *grid) of an output; all dimensions that are not axes are channels."""
        if not self.places:
            return output.reshape(*output.shape, *self.grid)
        rest = [place for place in range(1, output.ndim) if place not in self.places]
        moved = output.permute(0, *rest, *self.places)
        moved = moved.flatten(1, len(rest)) if rest else moved.unsqueeze(1)
        if self.is_tokens:
            moved = moved[:, :, self.before : self.before + prod(self.grid)].unflatten(2, self.grid)
        return moved

    @property
    def description(self) -> str:
        """The layout in words, such as `channels first`, or `14x14 tokens after 1 other`."""
        return f"{self._order}, taken to lie evenly over the image" if self.is_assumed else self._order

    @property
    def _order(self) -> str:
        if not self.places:
            return "a vector"
        if self.is_tokens:
            ahead = f" after {self.before} other{'s' if self.before > 1 else ''}" if self.before else ""
            return f"{'x'.join(map(str, self.grid))} tokens{ahead}"
        axes = ", ".join(str(place) for place in self.places)
        known = {2: "channels first", 1: "channels last"}
        in_order = self.places == tuple(range(self.places[0], self.places[0] + len(self.places)))
        return known.get(self.places[0], f"axes {axes}") if in_order else f"axes {axes}"


class _AllReached(Exception):  # noqa: N818 (a way out, not an error)
    """Ends a forward pass when all tapped layers were reached."""


def split_name(model: nn.Module, name: str) -> tuple[str, tuple[str, ...]]:
    """Split a layer's name into the module's path and the keys into its output."""
    path, *keys = name.split(":")
    own = path == OUTPUT and not hasattr(model, OUTPUT)
    return "" if own else path, tuple(keys)


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """Return the module of a layer; raises `LayerError` with the nearest names if it is unknown."""
    path, _ = split_name(model, name)
    modules = dict(model.named_modules())
    if path not in modules or name == "":
        known = [known for known in modules if known]
        near = difflib.get_close_matches(path, known, n=3, cutoff=0.5) or [*dict(model.named_children()), OUTPUT]
        raise LayerError(f"unknown layer '{name}' in {type(model).__name__}; the nearest are {', '.join(near)}")
    return modules[path]


def forward_to(
    model: nn.Module,
    names: Sequence[str],
    inputs: Tensor | Sequence[Tensor],
    take: Callable[[str, Tensor], T],
    *,
    once: bool = False,
) -> dict[str, T]:
    """Run the model up to the last of some layers and apply a function to the output of each.

    Args:
        model: the network.
        names: layers.
        inputs: the network's arguments.
        take: called with name and output as soon as a layer returns, before the output can be changed in place.
        once: run the model to its end, and raise an error for a layer that is called again.

    Returns:
        The results of `take`, by name.

    Raises:
        LayerError: a layer is unknown, is not called, or, with `once`, is called more than once.
    """
    taken: dict[str, T] = {}

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        _, keys = split_name(model, name)

        def note(module: nn.Module, args: Any, output: Any) -> None:
            if name in taken:
                if once:
                    raise LayerError(
                        f"layer '{name}' is called more than once in a forward pass; choose a module around it, or "
                        "the layer before or after"
                    )
                return
            taken[name] = take(name, _pick(name, output, keys))
            if len(taken) == len(names) and not once:
                raise _AllReached

        return note

    handles = [find_layer(model, name).register_forward_hook(hook(name)) for name in names]
    with suppress(_AllReached):
        try:
            model(*([inputs] if isinstance(inputs, Tensor) else inputs))
        finally:
            for handle in handles:
                handle.remove()
    for name in names:
        if name not in taken:
            raise LayerError(
                f"layer '{name}' is not called in the forward pass of {type(model).__name__}; choose another"
            )
    return {name: taken[name] for name in names}


def outputs(output: Any, prefix: str = "") -> dict[str, Tensor]:
    """Return all tensors in a module's output, by their keys."""
    if isinstance(output, Tensor):
        return {prefix: output}
    found: dict[str, Tensor] = {}
    for key, value in _items(output):
        found |= outputs(value, f"{prefix}:{key}")
    return found


def _items(output: Any) -> list[tuple[str, Any]]:
    if isinstance(output, Mapping):
        return [(str(key), value) for key, value in output.items()]
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return list(zip(output._fields, output, strict=True))
    return [(str(index), value) for index, value in enumerate(output)] if isinstance(output, Sequence) else []


def _pick(name: str, output: Any, keys: Sequence[str]) -> Tensor:
    """Return the tensor that keys select."""
    found = outputs(output)
    wanted = "".join(f":{key}" for key in keys)
    if wanted in found:
        return found[wanted]
    if not found:
        raise LayerError(f"layer '{name}' returns {type(output).__name__}, expected a tensor (N, C, H, W)")
    if isinstance(output, Tensor):
        raise LayerError(f"layer '{name}' returns one tensor; leave ':{':'.join(keys)}' out")
    base = name.split(":", maxsplit=1)[0]
    known = ", ".join(f"{base}{key}" for key in found)
    raise LayerError(f"layer '{name}' returns several tensors; choose one of {known}")
