"""What positions of a tensor have seen of the input, and of what its dimensions are made."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from erf.geometry import AxisField, ReceptiveField
from erf.layers import Layout


@dataclass(frozen=True)
class Factor:
    """Part of a dimension: an axis of the map, or something else such as a batch or channels (`axis` None)."""

    size: int
    axis: int | None = None


@dataclass(frozen=True)
class Tokens:
    """A dimension that holds the whole map in order, and other tokens before and after it."""

    size: int
    before: int
    after: int


Dim = tuple[Factor | Tokens, ...]
Dims = tuple[Dim, ...]


@dataclass(frozen=True)
class Seen:
    """What the positions of a tensor have seen of the input."""

    field: ReceptiveField
    grid: tuple[int, ...]
    """Size of the map to which they belong."""
    dims: Dims | None
    """Of what the tensor's dimensions are made; None where their order was lost, and the field is infinite."""

    @classmethod
    def source(cls, shape: Sequence[int]) -> "Seen":
        """The input (N, C, *axes) itself."""
        grid = tuple(shape[2:])
        axes = tuple(AxisField() for _ in grid)
        return cls(ReceptiveField(axes), grid, dims_of_map(shape))

    @property
    def spatial(self) -> bool:
        """Whether positions differ in what they see, as far as is known."""
        return self.dims is None or any(is_spatial(dim) for dim in self.dims)

    def everywhere(self, name: str, dims: Dims | None) -> "Seen":
        """After an operator that may carry anything anywhere; a value that is global already stays what it is."""
        is_global = not self.spatial and self.field.infinite
        return Seen(self.field if is_global else self.field.unbounded(name), self.grid, dims)

    def layout(self, shape: Sequence[int]) -> Layout | None:
        """How a tensor of this shape is read as a map; None where it is none."""
        seen = settled(self)
        if seen.dims is None:
            return None
        places: dict[int, int] = {}
        for place, dim in enumerate(seen.dims):
            if len(dim) == 1 and isinstance(dim[0], Tokens):
                return Layout((place,), seen.grid, dim[0].before)
            axes = [factor.axis for factor in dim if isinstance(factor, Factor)]
            if axes == [*range(len(seen.grid))] and len(axes) > 1:
                return Layout((place,), seen.grid, 0)
            if len(axes) == 1 and axes[0] is not None:
                places[axes[0]] = place
        # An axis of a single unit may have no dimension of its own left.
        if sorted(places) != [*range(len(seen.grid))] or any(
            shape[place] != seen.grid[axis] for axis, place in places.items()
        ):
            return None
        return Layout(tuple(places[axis] for axis in range(len(seen.grid))), seen.grid)


def axis_of(dim: Dim) -> int | None:
    """The axis that a dimension is, if it is one and nothing else."""
    factor = dim[0] if len(dim) == 1 else None
    return factor.axis if isinstance(factor, Factor) else None


def is_spatial(dim: Dim) -> bool:
    return any(isinstance(factor, Tokens) or factor.axis is not None for factor in dim)


def plain(size: int) -> Dim:
    return (Factor(size),) if size != 1 else ()


def dims_of_map(shape: Sequence[int]) -> Dims:
    axes = tuple((Factor(size, axis),) for axis, size in enumerate(shape[2:]))
    return (plain(shape[0]), plain(shape[1]), *axes)


def settled(seen: Seen) -> Seen:
    """With every axis in a dimension of its own, where it was cut into windows and put together again."""
    if seen.dims is None:
        return seen
    dims = list(seen.dims)
    for place, dim in enumerate(dims):
        if len(dim) > 1 and isinstance(dim[0], Factor) and dim[0].axis is not None:
            rest = dim[1:]
            if all(isinstance(factor, Factor) and factor.axis is None for factor in rest):
                axis, fine = dim[0].axis, math.prod(factor.size for factor in rest)
                spread = seen.field.axes[axis].transposed(fine, fine, 0, 1, dim[0].size * fine)
                size = dim[0].size * fine
                grid = (*seen.grid[:axis], size, *seen.grid[axis + 1 :])
                dims[place] = (Factor(size, axis),)
                seen = Seen(seen.field.on(axis, spread), grid, tuple(dims))
    return seen


def regroup(seen: Seen, shape: Sequence[int]) -> Seen:
    """After a view of another shape: factors are taken up in order, and cut where a dimension ends within them.

    An axis that is cut becomes that of the coarser pieces, each of which sees all that is in it.
    """
    if seen.dims is None:
        return seen
    if 0 in shape:
        return seen.everywhere("view", None)
    pending = [factor for dim in seen.dims for factor in dim]
    field, grid, dims = seen.field, list(seen.grid), []
    for size in shape:
        taken: list[Factor | Tokens] = []
        product = 1
        while pending and (product < size or pending[0].size == 1):
            factor, need = pending[0], size // product
            if factor.size <= need and need % factor.size == 0:
                taken.append(pending.pop(0))
                product *= factor.size
            elif isinstance(factor, Factor) and need > 1 and factor.size % need == 0:
                inner = factor.size // need
                if factor.axis is not None:
                    coarse = field.axes[factor.axis].window(inner, inner, 0, 1, need)
                    field = field.on(factor.axis, coarse)
                    grid[factor.axis] = need
                taken.append(Factor(need, factor.axis))
                pending[0] = Factor(inner)
                product *= need
            else:
                return seen.everywhere("view", None)
        if product != size:
            return seen.everywhere("view", None)
        dims.append(tuple(taken))
    return Seen(field, tuple(grid), tuple(dims))


def joined(name: str, seen: Sequence[Seen], shape: Sequence[int]) -> Seen:
    """Values that flow together position by position, broadcast to a shape."""
    wide = [broadcast(_settled_if_unlike(each, seen), len(shape)) for each in seen]
    main = max(wide, key=lambda each: (each.spatial and each.dims is not None, math.prod(each.grid)))
    field = main.field
    for each in wide:
        if each is main:
            continue
        if each.grid == main.grid and agree(each.dims, main.dims):
            field = field.union(each.field, main.grid)
        elif each.field.infinite and not (each.spatial and each.dims):
            field = field.unbounded(*each.field.unbounded_by)
        else:
            field = field.unbounded(*each.field.unbounded_by, name)
    return Seen(field, main.grid, main.dims)


def _settled_if_unlike(seen: Seen, others: Sequence[Seen]) -> Seen:
    """A map that was cut into windows is put together where another one meets it whole."""
    if seen.dims is None or all(other.grid == seen.grid for other in others):
        return seen
    return settled(seen)


def broadcast(seen: Seen, dimensions: int) -> Seen:
    if seen.dims is None:
        return seen
    return replace(seen, dims=((),) * (dimensions - len(seen.dims)) + seen.dims)


def agree(one: Dims | None, two: Dims | None) -> bool:
    """Whether the axes lie in the same dimensions."""
    if one is None or two is None:
        return False
    return all(a == b or not (is_spatial(a) or is_spatial(b)) for a, b in zip(one, two, strict=True))
