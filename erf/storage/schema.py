"""Validation of provenance and image records by type and range, for any storage."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, replace
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from erf.box import Box
from erf.definitions import DEFINITIONS
from erf.results import ImageRecord, Provenance

MAX_PIXELS = 2**28
"""Largest number of pixels of an input; above any detector."""

_LONGEST = 2**16
_LONGEST_DRAWN = 2**11
"""Largest length of a text, and of a text in the provenance that figures show, in characters."""

_FARTHEST = 2**20
"""Largest distance of a unit from the first pixel, in pixels."""

_TYPES: dict[Any, dict[str, Any]] = {kind: get_type_hints(kind) for kind in (Provenance, ImageRecord)}
"""Types by class and field."""

T = TypeVar("T", Provenance, ImageRecord)


def _positive(values: Sequence[float]) -> bool:
    return all(value > 0 for value in values)


def _finite(values: Sequence[float]) -> bool:
    return all(abs(value) < 1e9 for value in values)


def _is_crop(origin: Provenance) -> bool:
    if not origin.crop:
        return True
    top, left, bottom, right = origin.crop
    return 0 <= top < bottom <= origin.input_shape[1] and 0 <= left < right <= origin.input_shape[2]


def _is_finest(origin: Provenance) -> bool:
    """Rings and frames reach from the unit to the image, so that their number is limited with its distance."""
    near = all(abs(center) < _FARTHEST for center in origin.unit_center)
    return 0 <= origin.finest_block <= origin.small_block and (near or not origin.finest_block)


_PROVENANCE: dict[str, tuple[Callable[[Provenance], bool], str]] = {
    "layer": (lambda it: len(it.layer) <= _LONGEST_DRAWN, "a short text"),
    "input_shape": (
        lambda it: (
            _positive(it.input_shape) and math.prod(it.input_shape[1:]) <= MAX_PIXELS and it.input_shape[0] < 1e6
        ),
        "positive lengths of an image",
    ),
    "feature_shape": (lambda it: bool(it.feature_shape) and _positive(it.feature_shape), "positive lengths"),
    "unit": (
        lambda it: (
            len(it.unit) == len(it.feature_shape) - 1 > 0
            and all(0 <= at < end for at, end in zip(it.unit, it.feature_shape[1:], strict=True))
        ),
        "a place in the layer's map",
    ),
    "unit_center": (lambda it: _finite(it.unit_center), "a place in pixels"),
    "field_size": (lambda it: _positive(it.field_size), "positive lengths"),
    "field_shift": (lambda it: _finite(it.field_shift), "a distance in pixels"),
    "field_stride": (lambda it: all(step >= 0 for step in it.field_stride), "distances in pixels"),
    "field_kind": (
        lambda it: it.field_kind in ("finite", "infinite", "data-dependent", "unknown"),
        "finite or infinite",
    ),
    "crop": (_is_crop, "four edges inside the input"),
    "definitions": (
        lambda it: 0 < len(set(it.definitions) & set(DEFINITIONS)) == len(it.definitions),
        f"some of {', '.join(DEFINITIONS)}, each once",
    ),
    "small_block": (lambda it: 1 <= it.small_block <= MAX_PIXELS, "a positive length"),
    "finest_block": (_is_finest, "a length up to that of small_block, of a unit in or near the image"),
    "projections": (lambda it: 1 <= it.projections <= 1e6, "a positive number"),
    "slices": (lambda it: 0 <= it.slices <= MAX_PIXELS, "a number"),
    "parameters": (lambda it: it.parameters >= 0, "a number"),
    "depth": (lambda it: 0 <= it.depth < 1e9, "a number"),
    "precision_error": (lambda it: it.precision_error >= 0, "a share"),
    "model_options": (lambda it: len(it.title) <= _LONGEST_DRAWN, "a few options"),
    "method_options": (lambda it: len(it.target) <= 2 * _LONGEST_DRAWN, "a few options"),
    "imported": (lambda it: sum(map(len, it.imported.values())) <= _LONGEST_DRAWN, "a few short texts"),
    "weights": (lambda it: len(it.weights) <= 2 * _LONGEST_DRAWN, "a path"),
    "shard": (lambda it: 1 <= it.shard[0] <= it.shard[1], "(i, n) with i from 1 to n"),
}
"""Range checks of a provenance with correct types: condition and description, by field."""

_RECORD: dict[str, tuple[Callable[[ImageRecord], bool], str]] = {
    "status": (lambda it: it.status in ("ok", "failed"), "ok or failed"),
    "laterality": (lambda it: it.laterality in ("", "left", "right"), "left, right or nothing"),
    "pixel_spacing": (lambda it: math.isnan(it.pixel_spacing) or 0 < it.pixel_spacing < 1e6, "a positive length"),
    "number": (lambda it: it.number >= 0, "a place in the draw"),
    "subsets": (lambda it: "" not in it.subsets and len(set(it.subsets)) == len(it.subsets), "names, each once"),
}


def provenance_of(values: Mapping[str, Any]) -> Provenance:
    """Make a provenance from values by field; raise `ValueError` if invalid. Missing fields have their defaults."""
    found = _made(Provenance, _of_older(values), _PROVENANCE)
    return replace(found, crop=Box(*found.crop)) if found.crop else found


def _of_older(values: Mapping[str, Any]) -> dict[str, Any]:
    """Add what older files lack: they have one seed, of images and weights, and two kinds of fit."""
    found = {"image_seed": values.get("seed", 0)} | dict(values)
    if "resample" in found and found.pop("resample"):
        found["fit"] = "letterbox"
    return found


def record_of(values: Mapping[str, Any]) -> ImageRecord:
    """Make an image record from values by field; raise `ValueError` if invalid."""
    return _made(ImageRecord, values, _RECORD)


def _made(kind: type[T], values: Mapping[str, Any], rules: Mapping[str, tuple[Callable[[T], bool], str]]) -> T:
    known = {item.name: item for item in fields(kind)}
    needed = [item.name for item in known.values() if item.default is item.default_factory is MISSING]
    missing = [name for name in needed if name not in values]
    strange = [name for name in values if name not in known]
    if missing or strange:
        raise ValueError(f"found no {missing[0]}" if missing else f"found {strange[0]}, which is not known")
    types = _TYPES[kind]
    made = kind(**{name: _fitted(name, value, types[name]) for name, value in values.items()})
    for name, (holds, words) in rules.items():
        if not holds(made):
            raise ValueError(f"{name} is {_shown(getattr(made, name))}, expected {words}")
    return made


def _fitted(name: str, value: Any, kind: Any) -> Any:
    """Convert a value to a field's type; raise `ValueError` if it does not match."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is tuple and isinstance(value, (tuple, list)):
        kinds = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        if len(kinds) == len(value):
            return tuple(_fitted(name, one, each) for one, each in zip(value, kinds, strict=True))
    elif origin is Mapping and isinstance(value, dict):
        return {_fitted(name, key, parts[0]): _fitted(name, one, parts[1]) for key, one in value.items()}
    elif kind is Any or (kind in _SCALARS and _SCALARS[kind](value)):
        return float(value) if kind is float else value
    raise ValueError(f"{name} is {_shown(value)}, expected {_name(kind)}")


_SCALARS: dict[Any, Callable[[Any], bool]] = {
    str: lambda value: isinstance(value, str) and len(value) <= _LONGEST,
    bool: lambda value: isinstance(value, bool),
    int: lambda value: type(value) is int and abs(value) < 2**64,
    float: lambda value: type(value) is float or (type(value) is int and abs(value) < 2**64),
}


def _name(kind: Any) -> str:
    words = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    return words.get(kind) or str(kind).replace("collections.abc.", "").replace("typing.", "")


def _shown(value: Any) -> str:
    words = repr(value)
    return words if len(words) <= 60 else f"{words[:60]}…"
