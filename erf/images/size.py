"""Size of an image or of a network's input."""

from numbers import Integral
from operator import index

from erf.errors import InputError

Size = int | tuple[int, int]
"""Side of a square, or (height, width), in pixels."""


def as_size(given: Size) -> tuple[int, int]:
    """Return (height, width), of a square for a single number; raise `InputError` for anything else."""
    sides = (given, given) if isinstance(given, Integral) else given
    try:
        height, width = map(index, sides)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(f"size {given!r}; expected (height, width) in pixels, or one number for a square") from None
    return height, width
