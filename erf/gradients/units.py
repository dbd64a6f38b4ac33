"""Resolution of a user's choice of units to indices in a layer's map."""

import re
from collections.abc import Sequence
from math import floor

from erf.errors import ImageError, LayerError
from erf.images import Sample
from erf.network.layers import Unit
from erf.theory.fields import ReceptiveField

CENTER, MAX, COLUMN = "center", "max", "column:"

UnitChoice = str | Unit | Sequence[Unit]
"""'center'; (y, x), or 'y,x'; 'pixel:y,x', the unit nearest to a pixel of the frame; 'grid:3x3', so many spread evenly;
several of these with semicolons, or a sequence of (y, x). Image by image: 'max', the unit whose value is largest;
'column:NAME', the unit nearest to the point y,x, or the middle of the box top,left,bottom,right, that a manifest's
column gives in pixels of the file."""

_FARTHEST = 1e9
"""Pixels from the first; no image is so large."""

_EXPECTED = "expected center, y,x, pixel:y,x, grid:ROWSxCOLUMNS, max or column:NAME"


def center_unit(feature_shape: Sequence[int]) -> Unit:
    """(H // 2, W // 2): of an even number of units the one below and to the right of the middle."""
    return tuple(length // 2 for length in feature_shape)


def is_by_image(choice: UnitChoice) -> bool:
    """Whether each image has a unit of its own."""
    return isinstance(choice, str) and (choice == MAX or choice.startswith(COLUMN))


def resolve_units(
    choice: UnitChoice, layer: str, feature_shape: Sequence[int], field: ReceptiveField
) -> tuple[Unit, ...]:
    """The units of all images; of a choice that is made image by image, the centre, on which maps are aligned.

    `feature_shape` is that of the layer's map, without channels. Raises `LayerError` for units that are not there.
    """
    if is_by_image(choice):
        return (center_unit(feature_shape),)
    if isinstance(choice, str):
        texts = [text.strip() for text in choice.split(";")]
        found = [unit for text in texts for unit in _parse(text, layer, feature_shape, field)]
    else:
        single = tuple(index for index in choice if isinstance(index, int))
        found = [single] if single else [tuple(unit) for unit in choice if not isinstance(unit, int)]
    units = tuple(_check(unit, layer, feature_shape) for unit in dict.fromkeys(found))
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
    if match := re.fullmatch(r"grid:(\d{1,9}(?:x\d{1,9})*)", text.replace(" ", "")):
        return _grid([int(count) for count in match[1].split("x")], layer, feature_shape)
    raise LayerError(f"unit '{text}' not understood; {_EXPECTED}")


def numbers(text: str) -> list[float]:
    """Pixel coordinates with commas between them; `ValueError` where one is none."""
    found = [float(part) for part in text.split(",")]
    if not all(abs(number) < _FARTHEST for number in found):
        raise ValueError(f"{text} lies in no image")
    return found


def _nearest(point: Sequence[float], layer: str, feature_shape: Sequence[int], field: ReceptiveField) -> Unit:
    if len(point) != len(feature_shape):
        raise LayerError(f"pixel with {len(point)} coordinates; layer '{layer}' has {len(feature_shape)} axes")
    return field.nearest(point)


def _grid(counts: Sequence[int], layer: str, feature_shape: Sequence[int]) -> list[Unit]:
    """Units in the middles of as many equal parts of each axis."""
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


def unit_of_image(choice: str, sample: Sample, feature_shape: Sequence[int], field: ReceptiveField) -> Unit:
    """The unit to which a manifest's column points in one image; raises `ImageError` where it points to none."""
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
    if not all(0 <= index < length for index, length in zip(unit, feature_shape, strict=True)):
        raise ImageError(
            f"{sample.image.path}: column '{column}' points to {text}, which lies outside the frame of "
            f"{'x'.join(map(str, sample.pixels.shape[1:]))} pixels"
        )
    return unit
