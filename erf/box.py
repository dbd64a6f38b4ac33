"""Rectangles of pixels, with one order of coordinates everywhere: y before x, first corner before second."""

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

Number = TypeVar("Number", int, float)


class Box(NamedTuple, Generic[Number]):
    """Rectangle of pixels: rows from `top` up to `bottom`, columns from `left` up to `right`.

    Example:
        >>> box = Box(0, 10, 4, 15)
        >>> box.shape
        (4, 5)
        >>> Box.of_axes((0, 4), (10, 15)) == box
        True
    """

    top: Number
    left: Number
    bottom: Number
    right: Number

    @classmethod
    def of_axes(cls, *along: Sequence[Number]) -> "Box[Number]":
        """Return the box with the given ranges (first, end) along y and along x."""
        (top, bottom), (left, right) = along
        return cls(top, left, bottom, right)

    @classmethod
    def whole(cls, size: Sequence[int]) -> "Box[int]":
        """Return the box of an image of `size` (height, width)."""
        return Box(0, 0, size[0], size[1])

    @property
    def axes(self) -> tuple[tuple[Number, Number], tuple[Number, Number]]:
        """Ranges (first, end) along y and along x."""
        return (self.top, self.bottom), (self.left, self.right)

    @property
    def shape(self) -> tuple[Number, Number]:
        """(height, width) in pixels."""
        return self.bottom - self.top, self.right - self.left

    @property
    def slices(self) -> tuple[slice, slice]:
        """Slices of rows and columns of an array (..., H, W)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def is_inside(inner: Box[int], outer: Box[int]) -> bool:
    """Whether one box lies in another."""
    pairs = zip(inner.axes, outer.axes, strict=True)
    return all(first <= start and stop <= end for (start, stop), (first, end) in pairs)
