"""Resolution of a user's choice of units to indices in a layer's map."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor

import numpy as np
from numpy.typing import NDArray

from erf.errors import ImageError, LayerError
from erf.gradients.autograd import window_range
from erf.images import Image, Sample, read_image
from erf.network.layers import Unit
from erf.theory.fields import ReceptiveField

CENTER, MAX, COLUMN, MASK, WINDOW = "center", "max", "column:", "mask:", "window:"

UnitChoice = str | Unit | Sequence[Unit]
"""'center'; (y, x), or 'y,x'; 'pixel:y,x', the unit nearest to a pixel of the frame; 'grid:3x3', so many spread evenly;
several of these with semicolons, or a sequence of (y, x); 'window:16x16', the sum over so many units in the middle of
the map, or, as 'window:16x16@y,x', around a unit. Image by image: 'max', the unit whose value is largest;
'column:NAME', the unit nearest to the point y,x, or the middle of the box top,left,bottom,right, that a manifest's
column gives in pixels of the file; 'mask:NAME', units at 16 random pixels of a mask, the file named in that column,
whose maps are averaged, 'mask:NAME:64' at 64, 'mask:NAME:all' at each."""

_FARTHEST = 1e9
"""Pixels from the first; no image is so large."""

_EXPECTED = "expected center, y,x, pixel:y,x, grid:ROWSxCOLUMNS, window:HEIGHTxWIDTH, max, column:NAME or mask:NAME"


def center_unit(feature_shape: Sequence[int]) -> Unit:
    """Return the central unit, (H // 2, W // 2): of an even number of units the one below and right of the middle."""
    return tuple(length // 2 for length in feature_shape)


def one_channel(choice: int | str, layer: str, channels: int) -> int | None:
    """Return the number of the only channel that is chosen, None for all; `LayerError` for any other choice.

    Args:
        choice: 'all', or a number.
        layer: path of the layer, for errors.
        channels: number of its channels.
    """
    if choice == "all":
        return None
    if not isinstance(choice, int) or not 0 <= choice < channels:
        raise LayerError(
            f"channel {choice} of layer '{layer}', which has {channels}; expected 'all' or a number below that"
        )
    return choice


def is_by_image(choice: UnitChoice) -> bool:
    """Whether each image has a unit of its own."""
    return isinstance(choice, str) and (choice == MAX or choice.startswith((COLUMN, MASK)))


def resolve_units(
    choice: UnitChoice, layer: str, feature_shape: Sequence[int], field: ReceptiveField
) -> tuple[Unit, ...]:
    """Resolve a choice to the units of all images; a choice made image by image gives the centre, for alignment.

    Args:
        choice: the choice.
        layer: path of the layer, for errors.
        feature_shape: (H, W) of the layer's map, or as many lengths as it has axes.
        field: theoretical receptive field of the layer.

    Returns:
        The units, each once.

    Raises:
        LayerError: the choice is not understood, or a unit lies outside the map.
    """
    if is_by_image(choice):
        return (center_unit(feature_shape),)
    if isinstance(choice, str):
        texts = [text.strip() for text in choice.split(";")]
        if len(texts) > 1 and any(text.startswith(WINDOW) for text in texts):
            raise LayerError(f"unit '{choice}': a window and others; expected a single one of them")
        chosen = [unit for text in texts for unit in _parse(text, layer, feature_shape, field)]
    else:
        single = tuple(index for index in choice if isinstance(index, int))
        chosen = [single] if single else [tuple(unit) for unit in choice if not isinstance(unit, int)]
    units = tuple(_check(unit, layer, feature_shape) for unit in dict.fromkeys(chosen))
    if not units:
        raise LayerError(f"no unit of layer '{layer}' was asked for; {_EXPECTED}")
    return units


def _parse(text: str, layer: str, feature_shape: Sequence[int], field: ReceptiveField) -> list[Unit]:
    if text == CENTER:
        return [center_unit(feature_shape)]
    if match := re.fullmatch(r"\d{1,9}(\s*,\s*\d{1,9})*", text):
        return [tuple(int(index) for index in text.split(","))]
    if match := re.fullmatch(r"pixel:([-+\d.e]+(?:,[-+\d.e]+)*)", text.replace(" ", "")):
        try:
            point = numbers(match[1])
        except ValueError as error:
            raise LayerError(f"unit '{text}' not understood; {_EXPECTED}") from error
        return [_nearest(point, layer, feature_shape, field)]
    if window := window_of(text):
        return [_window_middle(text, window, layer, feature_shape)]
    if match := re.fullmatch(r"grid:(\d{1,9}(?:x\d{1,9})*)", text.replace(" ", "")):
        return _grid([int(count) for count in match[1].split("x")], layer, feature_shape)
    raise LayerError(f"unit '{text}' not understood; {_EXPECTED}")


_WINDOW = re.compile(r"window:(\d{1,9}(?:x\d{1,9})*)(?:@\d{1,9}(?:\s*,\s*\d{1,9})*)?")


def window_of(choice: UnitChoice) -> Unit:
    """Return the lengths of a window of units, () for any other choice."""
    match = _WINDOW.fullmatch(choice.strip()) if isinstance(choice, str) else None
    return tuple(int(length) for length in match[1].split("x")) if match else ()


def _window_middle(text: str, window: Unit, layer: str, feature_shape: Sequence[int]) -> Unit:
    """Return the middle unit of a window; `LayerError` if the window does not lie in the map."""
    _, _, place = text.partition("@")
    unit = tuple(int(index) for index in place.split(",")) if place else center_unit(feature_shape)
    if (
        len(window) != len(feature_shape)
        or len(unit) != len(window)
        or not all(
            first >= 0 and first < stop <= length
            for (first, stop), length in zip(window_range(unit, window), feature_shape, strict=True)
        )
    ):
        raise LayerError(
            f"unit '{text}' lies outside layer '{layer}', whose map is {'x'.join(map(str, feature_shape))}; expected a "
            "smaller window"
        )
    return unit


def numbers(text: str) -> list[float]:
    """Parse pixel coordinates separated by commas; raise `ValueError` for anything else."""
    values = [float(part) for part in text.split(",")]
    if not all(abs(value) < _FARTHEST for value in values):
        raise ValueError(f"{text} lies in no image")
    return values


def _nearest(point: Sequence[float], layer: str, feature_shape: Sequence[int], field: ReceptiveField) -> Unit:
    if len(point) != len(feature_shape):
        raise LayerError(f"pixel with {len(point)} coordinates; layer '{layer}' has {len(feature_shape)} axes")
    return field.nearest(point)


def _grid(counts: Sequence[int], layer: str, feature_shape: Sequence[int]) -> list[Unit]:
    """Return the units in the middles of equal parts, `counts` along each axis."""
    if len(counts) != len(feature_shape) or any(
        not 1 <= count <= length for count, length in zip(counts, feature_shape, strict=False)
    ):
        raise LayerError(
            f"a grid of {'x'.join(map(str, counts))} units in layer '{layer}', whose map is "
            f"{'x'.join(map(str, feature_shape))}; expected as many numbers, from 1 to these"
        )
    units: list[Unit] = [()]
    for count, length in zip(counts, feature_shape, strict=True):
        units = [(*unit, floor((index + 0.5) * length / count)) for unit in units for index in range(count)]
    return units


def _check(unit: Unit, layer: str, feature_shape: Sequence[int]) -> Unit:
    if len(unit) != len(feature_shape) or not all(
        0 <= index < length for index, length in zip(unit, feature_shape, strict=True)
    ):
        axes = "zyx"[-len(feature_shape) :]
        expected = " and ".join(f"{axis} below {length}" for axis, length in zip(axes, feature_shape, strict=False))
        raise LayerError(
            f"unit {','.join(map(str, unit))} lies outside layer '{layer}', whose map is "
            f"{'x'.join(map(str, feature_shape))}; expected {expected}"
        )
    return unit


_MOST_PIXELS = 4096
"""Largest number of pixels of a mask; each takes a backward pass."""


@dataclass(frozen=True)
class MaskChoice:
    """Choice of units by a mask: column of the manifest, and the number of its pixels; 0 for all."""

    column: str
    count: int = 16

    @classmethod
    def parse(cls, choice: UnitChoice) -> "MaskChoice | None":
        """Parse 'mask:NAME', 'mask:NAME:64' or 'mask:NAME:all'; None for any other choice."""
        if not isinstance(choice, str) or not choice.startswith(MASK):
            return None
        column, colon, count = choice.removeprefix(MASK).partition(":")
        if not column or (colon and count != "all" and not (count.isdecimal() and 0 < int(count) <= _MOST_PIXELS)):
            raise LayerError(f"unit '{choice}' not understood; expected mask:NAME, mask:NAME:64 or mask:NAME:all")
        return cls(column, 0 if count == "all" else int(count or 16))

    def units(
        self, sample: Sample, feature_shape: Sequence[int], field: ReceptiveField, rng: np.random.Generator
    ) -> tuple[Unit, ...]:
        """Return the units nearest to pixels of the image's mask, drawn at random if it has more than asked for.

        Args:
            sample: the image.
            feature_shape: (H, W) of the layer's map.
            field: theoretical receptive field of the layer.
            rng: source of random numbers.

        Raises:
            ImageError: the mask cannot be read, has another shape, is empty or has too many pixels.
        """
        image = sample.image
        pixels = read_image(image.file_of(self.column), allow_constant=True).pixels
        if pixels.shape[1:] != sample.file_shape:
            raise ImageError(
                f"{image.path}: its mask has {'x'.join(map(str, pixels.shape[1:]))} pixels, expected "
                f"{'x'.join(map(str, sample.file_shape))}"
            )
        places = np.argwhere(pixels.any(0))
        units = [field.nearest(sample.placement.to_frame(*place)) for place in self._drawn(places, image, rng)]
        inside = [unit for unit in units if _is_inside(unit, feature_shape)]
        if not inside:
            raise ImageError(f"{image.path}: its mask has no pixel inside the frame")
        return tuple(inside)

    def _drawn(self, places: NDArray[np.intp], image: Image, rng: np.random.Generator) -> list[tuple[int, int]]:
        if self.count and len(places) > self.count:
            places = places[np.sort(rng.choice(len(places), self.count, replace=False))]
        if len(places) > _MOST_PIXELS:
            raise ImageError(
                f"{image.path}: its mask has {len(places)} pixels, each a backward pass; expected at most "
                f"{_MOST_PIXELS}",
                remedy="choose some as `unit`, such as mask:NAME:64",
            )
        return [(int(y), int(x)) for y, x in places]


def _is_inside(unit: Unit, feature_shape: Sequence[int]) -> bool:
    return all(0 <= index < length for index, length in zip(unit, feature_shape, strict=True))


def unit_of_image(choice: str, sample: Sample, feature_shape: Sequence[int], field: ReceptiveField) -> Unit:
    """Return the unit to which a manifest column points in one image.

    Args:
        choice: 'column:NAME'.
        sample: the image; the column holds a point or a box in pixels of its file.
        feature_shape: (H, W) of the layer's map.
        field: theoretical receptive field of the layer.

    Raises:
        ImageError: the column holds neither, or points outside the frame.
    """
    column = choice.removeprefix(COLUMN)
    text = sample.image.value(column).strip(" ()[]")
    try:
        point = numbers(text)
    except ValueError:
        point = []
    if len(point) == 4:
        point = [(point[0] + point[2]) / 2, (point[1] + point[3]) / 2]
    if len(point) != 2:
        raise ImageError(
            f"{sample.image.path}: column '{column}' has '{text}', expected y,x or top,left,bottom,right in pixels"
        )
    unit = field.nearest(sample.placement.to_frame(point[0], point[1]))
    if not _is_inside(unit, feature_shape):
        raise ImageError(
            f"{sample.image.path}: column '{column}' points to {text}, which lies outside the frame of "
            f"{'x'.join(map(str, sample.pixels.shape[1:]))} pixels"
        )
    return unit
