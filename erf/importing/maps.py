"""Maps of other programs as ERFs, which are measured, drawn and compared like those of a run."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from erf.accumulation.moments import Moments
from erf.definitions import DEFAULT_DEFINITION, DEFINITIONS
from erf.errors import InputError
from erf.importing.arrays import StoredArray, read_array
from erf.importing.profiles import profile_of
from erf.results import ERF, ImageRecord, MemorySink, Overview, Provenance, blank_overview
from erf.results.grid import Array, small_block
from erf.results.provenance import ASSUMED
from erf.storage.schema import MAX_PIXELS

_SMALLEST, _LARGEST = 1e-30, 1e30
"""Range of a map's largest magnitude: sums over it are kept in single precision."""

_CHANNELS = 4
"""Largest width of a stack that is taken for the channels of one map instead."""


def import_map(
    source: ArrayLike | str | Path,
    *,
    title: str = "",
    definition: str = DEFAULT_DEFINITION,
    center: tuple[float, float] | None = None,
    array: str = "",
) -> ERF:
    """Make an ERF from a map that another program has computed.

    What a map does not tell is not invented: theoretical field, layer, weights and images are not known, and a single
    map has neither a variance nor intervals.

    Args:
        source: A map (H, W), or maps (N, H, W) of N images; or a file of NumPy (.npy, .npz) that holds one.
        title: Name of the network; '' for the name of the file.
        definition: How the gradient became the map: 'signed', 'abs', 'relu' or 'square'.
        center: (y, x) of the unit in pixels of the map; None for the middle of the map, ((H - 1) / 2, (W - 1) / 2).
        array: Name of the array in a .npz file with several.

    Returns:
        The ERF, whose only subset is 'all'; means and variances are in double precision.

    Raises:
        FormatError: The file is damaged, holds Python objects, or is no file of NumPy.
        InputError: The array is no map: another shape, values that are not finite, or negative ones although the
            definition has none.

    Example:
        >>> import erf, numpy as np
        >>> y, x = np.ogrid[:65, :65]
        >>> gaussian = np.exp(-((y - 32) ** 2 + (x - 32) ** 2) / (2 * 6**2))
        >>> found = erf.import_map(gaussian, title="a Gaussian")
        >>> bool(abs(found.measure("r50").value - 6 * np.sqrt(2 * np.log(2))) < 0.1)
        True
    """
    if definition not in DEFINITIONS:
        raise InputError(f"definition '{definition}' not known; expected one of {', '.join(DEFINITIONS)}")
    stored = read_array(Path(source), array) if isinstance(source, str | Path) else _in_memory(source)
    words = stored.file or "the array"
    maps = _stacked(words, stored.values)
    origin = _provenance(stored, maps, title, definition, _center(maps, center), center is not None)
    sink, moments = MemorySink(), None
    sink.begin(origin)
    for number, values in enumerate(_checked(words, maps, definition)):
        record = ImageRecord(
            id=f"{origin.model} {number}" if len(maps) > 1 else origin.model,
            path=stored.file, laterality="", view="", patient_id="", status="ok", subsets=("all",), number=number,
        )  # fmt: skip
        sink.add_image(record, {definition: profile_of(values, origin.grid)}, _unknown_tissue(origin))
        one = Moments(1, values, np.zeros_like(values))
        moments = one if moments is None else moments.merge(one)
    assert moments is not None
    if not moments.mean.any():
        raise InputError(f"{words}: every value is 0; expected a map with values to measure")
    sink.add_statistics("all", definition, moments.statistics(np.float64))
    return sink.result()


def _in_memory(source: ArrayLike) -> StoredArray:
    values = np.asarray(source)
    return StoredArray(values, sha256=hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest())


def _stacked(words: str, values: NDArray[Any]) -> NDArray[Any]:
    """Return maps (N, H, W); raise `InputError` for an array of another shape or type."""
    if values.dtype.kind not in "fiub":
        raise InputError(f"{words}: found an array of type {values.dtype}; expected real numbers")
    if values.ndim not in (2, 3) or not values.size:
        found = " x ".join(map(str, values.shape)) or "a single number"
        raise InputError(f"{words}: found an array of shape {found}; expected a map (H, W) or one per image (N, H, W)")
    height, width = values.shape[-2:]
    if values.ndim == 3 and width <= _CHANNELS < min(values.shape[0], height):
        raise InputError(
            f"{words}: found an array of shape {' x '.join(map(str, values.shape))}, which looks like channels last; "
            "expected a map (H, W), such as their sum, or one per image (N, H, W)"
        )
    if height * width > MAX_PIXELS:
        raise InputError(f"{words}: found {height}x{width} pixels; expected at most {MAX_PIXELS}")
    return values if values.ndim == 3 else values[None]


def _checked(words: str, maps: NDArray[Any], definition: str) -> Iterator[Array]:
    """Yield each map in double precision; raise `InputError` for values that a map cannot have."""
    for number, each in enumerate(maps):
        values = np.asarray(each, np.float64)
        where = f"{words}, map {number}" if len(maps) > 1 else words
        if not np.isfinite(values).all():
            raise InputError(f"{where}: found values that are not finite; expected a map without gaps")
        if definition != "signed" and values.min() < 0:
            raise InputError(
                f"{where}: found negative values, down to {values.min():.3g}, which definition '{definition}' excludes",
                remedy="for a signed gradient use `definition=signed`",
            )
        largest = float(np.abs(values).max())
        if largest and not _SMALLEST <= largest <= _LARGEST:
            raise InputError(f"{where}: found a largest value of {largest:.3g}; expected {_SMALLEST:g} to {_LARGEST:g}")
        yield values


def _center(maps: NDArray[Any], center: tuple[float, float] | None) -> tuple[float, float]:
    height, width = maps.shape[1:]
    y, x = center if center is not None else ((height - 1) / 2, (width - 1) / 2)
    if not (-0.5 <= y <= height - 0.5 and -0.5 <= x <= width - 0.5):
        raise InputError(f"centre y {y:g}, x {x:g} lies outside the map of {height}x{width} pixels")
    return float(y), float(x)


def _provenance(
    stored: StoredArray,
    maps: NDArray[Any],
    title: str,
    definition: str,
    center: tuple[float, float],
    is_given: bool,
) -> Provenance:
    height, width = maps.shape[1:]
    return Provenance(
        model=title or stored.name or Path(stored.file).stem or "imported map",
        imported={
            "file": stored.file,
            "array": stored.name,
            "sha256": stored.sha256,
            "centre": "given" if is_given else ASSUMED,
        },
        layer="not known",
        unit=(0, 0),
        feature_shape=(1, 1, 1),
        unit_center=center,
        input_shape=(1, height, width),
        field_size=(float("inf"), float("inf")),
        field_stride=(0.0, 0.0),
        field_kind="unknown",
        definitions=(definition,),
        normalisation="",
        small_block=small_block((height, width)),
        finest_block=1,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _unknown_tissue(origin: Provenance) -> Overview:
    blank = blank_overview(origin)
    return Overview(blank.thumbnail, np.full_like(blank.tissue, np.nan))
